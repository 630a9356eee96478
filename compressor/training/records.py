"""What a fit reports: steps, epochs, its result, and which epoch was best; it must never hold tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepReport:
    """One optimizer step; `epoch` and `step` count from 1, `step` within its epoch of `n_steps`."""

    epoch: int
    step: int
    n_steps: int
    loss: float
    lr: float


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, counted from 1; `metrics` is empty where it was not evaluated, `lr` its last step's rate."""

    epoch: int
    lr: float
    train_loss: float
    metrics: dict[str, float]
    extra: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """All epochs, those before a resume included; `stopped` says why the fit ended before its last epoch."""

    history: tuple[EpochRecord, ...]
    best_epoch: int | None
    stopped: str | None
    steps: int


def best_record(history: Sequence[EpochRecord], metric: str, higher_is_better: bool) -> EpochRecord | None:
    """The evaluated epoch with the best `metric`, the first of equals; None when there is none."""
    sign = 1.0 if higher_is_better else -1.0
    best: EpochRecord | None = None
    for record in history:
        value = record.metrics.get(metric, math.nan)
        if not math.isnan(value) and (best is None or sign * value > sign * best.metrics[metric]):
            best = record
    return best
