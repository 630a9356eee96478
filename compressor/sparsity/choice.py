"""What selection is asked and what it answers (`Choice`, `Selector`, `Selection`); it must never select anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from torch import Tensor

from compressor.asking.scan import Sensitivity
from compressor.axes import Keep
from compressor.cost import USUAL, Preferences, Stopwatch
from compressor.errors import UsageError
from compressor.program import Layer


@dataclass(frozen=True)
class Selection:
    """Masks and what they leave: `kept` ÷ `dense` in the unit of the budget. `keep` is None for single weights."""

    masks: dict[str, Tensor]
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
    """What a selector is made for: pattern, unit of the budget, layers, and how scores are compared.

    `unit_share` is the part of the ratio that whole units carry where columns are cut as well, as a power: of 16x at
    1/2, 4x. `shares` and `quality` are (glob, value) pairs of single layers (`by_layer`): the share that stays, and a
    threshold in standard deviations; `scan` ranks layers by what they lose, and with `max_loss` decides them.
    Whole units leave widths that are multiples of `round_to`, or, with 0, that `preferences` like. `stopwatch` times
    layers where time is what counts.
    """

    pattern: str
    of: str = "params"
    allocation: str = "global"
    scope: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    floor: float = 0.05
    round_to: int = 1
    score: str = "magnitude"
    seed: int = 0
    unit_share: float = 0.5
    shares: tuple[tuple[str, float], ...] = ()
    quality: tuple[tuple[str, float], ...] = ()
    scan: Sensitivity | None = None
    max_loss: float | None = None
    stopwatch: Stopwatch | None = None
    preferences: Preferences = USUAL


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
