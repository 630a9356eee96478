"""What heals a cut beside plain training, as checked values; it must never hold how."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.asking.option import at_least, check, group, option
from compressor.asking.panels import EXPERIMENTS, HEALING
from compressor.errors import UsageError


@dataclass(frozen=True)
class Recovery:
    """Training batches for each step, 0 to leave it out: weights by least squares first, then batch-norm statistics.

    Raises:  UsageError for a value out of range.
    """

    reconstruct: int = option(
        0,
        "Fit the weights that a cut leaves to the dense outputs on N training batches, by least squares; with ADMM "
        "and --epochs 0 single weights are chosen by that, too.",
        metavar="N", panel=HEALING, range=at_least(0),
    )  # fmt: skip
    recalibrate: int = option(
        0,
        "Measure batch norm statistics again on N training batches after a cut.",
        metavar="N", panel=HEALING, range=at_least(0),
    )  # fmt: skip
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        check(self)
        if self.ridge <= 0:
            raise UsageError(f"--ridge {self.ridge:g}: must be above 0")

    def __bool__(self) -> bool:
        return self.reconstruct > 0 or self.recalibrate > 0


@dataclass(frozen=True, kw_only=True)
class Healing:
    """What heals a cut: `recovery` without training; in its retraining, kinds of layers taken in turn (`alternate`) and
    layers left as they are (`freeze`, globs)."""

    recovery: Recovery = group(Recovery)
    alternate: bool = option(
        False, "Retrain convolutions and linear layers in turn, epoch by epoch.", panel=EXPERIMENTS
    )
    freeze: tuple[str, ...] = option(
        (), "Layers that training leaves as they are; repeat.", metavar="GLOB", panel=HEALING, repeat=True
    )
