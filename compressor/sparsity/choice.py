"""What selection is asked and what it answers (`Choice`, `Selector`, `Selection`); it must never select anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from torch import Tensor

from compressor.asking.prune import Cut
from compressor.axes import Block, Keep
from compressor.cost import USUAL, Preferences, Stopwatch
from compressor.errors import UsageError
from compressor.program import Layer


@dataclass(frozen=True)
class Selection:
    """Masks and what they leave: `kept` ÷ `dense` in the unit of the budget. `keep` is None for single weights."""

    masks: Mapping[str, Tensor]
    dense: float
    kept: float
    keep: Keep | None

    @property
    def ratio(self) -> float:
        return self.dense / self.kept


class Selector(Protocol):
    """Chooses what stays under a pattern and a budget."""

    @property
    def dense(self) -> float:
        """Cost of everything in scope."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the choice before it is made: layers that the pattern leaves alone."""
        ...

    def select(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor] | None = None
    ) -> Selection:
        """Masks over `tensors` at dense ÷ kept >= `ratio`; what `masks` cut already stays cut and counts as cut.

        Raises:  RatioError if that is not feasible.
        """
        ...

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep) -> float:
        """What masks leave, counted as the budget counts: by whole units (`keep`) or by single weights."""
        ...


@dataclass(frozen=True)
class Choice:
    """What a selector is made for: what was asked, and the machine that it is asked for.

    `stopwatch` times layers where time is what counts; `preferences` are the widths that whole units leave where none
    are asked for (`round_to` 0). `order` names residual blocks as they go, and `routed` says for each router, by its
    weight, what matters of each of its experts, where that was measured. `blocks` are those to choose among where not
    all may go alone (whole layers).
    """

    asked: Cut
    stopwatch: Stopwatch | None = None
    preferences: Preferences = USUAL
    order: tuple[str, ...] | None = None
    routed: Mapping[str, tuple[float, ...]] | None = None
    blocks: tuple[Block, ...] | None = None


def matching_layers(layers: Sequence[Layer], globs: Sequence[str], option: str) -> set[str]:
    """Names of the layers that one of the globs matches.

    Raises:  UsageError if a glob matches no layer; it names `option`.
    """
    names = {layer.name for layer in layers}
    found: set[str] = set()
    for glob in globs:
        hits = {name for name in names if fnmatchcase(name, glob)}
        if not hits:
            known = ", ".join(sorted(names)[:6]) + (" …" if len(names) > 6 else "")
            raise UsageError(f"{option} {glob}: matches no layer; layers are {known}")
        found |= hits
    return found
