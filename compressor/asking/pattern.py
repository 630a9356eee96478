"""The names of patterns and what they mean, read from text without torch; it must never hold how a pattern chooses."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from compressor.errors import UsageError
from compressor.nearest import did_you_mean

UnitKind = Literal["filter", "channel", "head"]
WeightKind = Literal["unstructured", "shape", "n:m", "block"]
Grain = Literal["free", "channel", "position"]

UNIT_KINDS: tuple[UnitKind, ...] = ("filter", "channel", "head")
LAYER = "layer"
EXPERT = "expert"
PATTERN_FORMS = (
    *UNIT_KINDS, LAYER, "layer+channel", EXPERT, "expert+channel", "shape", "filter+shape", "channel+shape",
    "unstructured", "2:4", "block:4x4",
)  # fmt: skip
"""One of every form, for help and messages."""

_N_OF_M = re.compile(r"(\d+):(\d+)")
_BLOCK = re.compile(r"block:(\d+)x(\d+)")
_GRAINS: dict[str, Grain] = {"shape": "free", "shape:channel": "channel", "shape:position": "position"}
_LARGEST_WINDOW = 64
_LARGEST_BLOCK = 256


@dataclass(frozen=True)
class Pattern:
    """A pattern, as `parse_pattern` reads it.

    `blocks` says that whole residual blocks go, `experts` that whole experts of a mixture do, `units` which whole
    units, `weights` what is cut inside of the rest; at least one of them is set.
    `grain` is what goes together in `shape`: single columns, all columns of an input channel, or all of a kernel
    position. `window` is (N, M) of N:M: of M weights in a row N stay. `block` is (rows, columns) in the GEMM view.
    """

    text: str
    units: UnitKind | None = None
    weights: WeightKind | None = None
    grain: Grain = "free"
    window: tuple[int, int] | None = None
    block: tuple[int, int] | None = None
    blocks: bool = False
    experts: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def is_width(self) -> bool:
        """Whether what it cuts are the units of widths, and nothing else."""
        return self.units is not None and self.weights is None and not self.is_deep

    @property
    def is_deep(self) -> bool:
        """Whether it cuts what is more than a width: blocks or experts."""
        return self.blocks or self.experts

    @property
    def is_physical(self) -> bool:
        """Whether what it cuts can be removed; otherwise it stays in the model as zeros."""
        return self.weights in (None, "shape")

    @property
    def implied_ratio(self) -> float | None:
        """M/N for N:M; None where the ratio is free."""
        return None if self.window is None else self.window[1] / self.window[0]


def read_pattern(said: object) -> Pattern:
    """What was said from Python: a pattern, or the text of one.

    Raises:  UsageError if it is neither.
    """
    if isinstance(said, Pattern):
        return said
    if not isinstance(said, str):
        raise UsageError(f"--pattern {said}: must be text; choose one of {', '.join(PATTERN_FORMS)}")
    return parse_pattern(said)


def parse_pattern(text: str) -> Pattern:
    """The pattern that `text` names: `filter`, `channel+shape`, `2:4`, `block:1x4` …

    Raises:  UsageError if it names none, or combines what does not go together.
    """
    parts = [part.strip().lower() for part in text.split("+")]
    units: list[UnitKind] = [kind for kind in UNIT_KINDS if kind in parts]
    deep = [name for name in (LAYER, EXPERT) if name in parts]
    inner = [_weight_pattern(text, part) for part in parts if part not in (*UNIT_KINDS, LAYER, EXPERT)]
    partner = (len(deep) == 1 and not inner) or (len(inner) == 1 and not deep and inner[0].weights == "shape")
    if len(parts) > 1 and not (len(parts) == 2 and len(units) == 1 and partner):
        raise UsageError(
            f"--pattern {text}: these do not combine; filter, channel or head goes with shape, layer or expert, as in"
            " filter+shape or layer+channel"
        )
    if not inner:
        blocks, experts = LAYER in deep, EXPERT in deep
        return Pattern("+".join([*deep, *units]), blocks=blocks, experts=experts, units=units[0] if units else None)
    name = inner[0].text if not units else f"{units[0]}+{inner[0].text}"
    return replace(inner[0], text=name, units=units[0] if units else None)


def _weight_pattern(text: str, part: str) -> Pattern:
    if part == "unstructured":
        return Pattern(part, weights="unstructured")
    if part in _GRAINS:
        return Pattern(part, weights="shape", grain=_GRAINS[part])
    if match := _N_OF_M.fullmatch(part):
        n, m = int(match[1]), int(match[2])
        if not 1 <= n < m <= _LARGEST_WINDOW:
            raise UsageError(f"--pattern {text}: of M weights N stay, 1 <= N < M <= {_LARGEST_WINDOW}, as in 2:4")
        return Pattern(f"{n}:{m}", weights="n:m", window=(n, m))
    if match := _BLOCK.fullmatch(part):
        rows, columns = int(match[1]), int(match[2])
        if not (1 <= rows <= _LARGEST_BLOCK and 1 <= columns <= _LARGEST_BLOCK and rows * columns > 1):
            raise UsageError(
                f"--pattern {text}: a block has 1 to {_LARGEST_BLOCK} rows and columns, and more than one weight; "
                "single weights are unstructured"
            )
        return Pattern(f"block:{rows}x{columns}", weights="block", block=(rows, columns))
    meant = did_you_mean(part, PATTERN_FORMS, most=1)
    hint = f"{meant}\nthere are" if meant else "choose one of"
    raise UsageError(f"--pattern {text}: no such pattern; {hint} {', '.join(PATTERN_FORMS)}")
