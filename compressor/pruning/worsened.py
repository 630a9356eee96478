"""What training or healing under masks made worse, in words; it must never measure anything."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from compressor.data import Task
from compressor.pruning.pruned import StageRow
from compressor.units import format_metric


def worsened(rows: Sequence[StageRow], task: Task, *, keeps_best: bool) -> tuple[str, ...]:
    """A sentence for every stage that cut nothing and left the task's metric worse than the stage before it.

    A search may: it draws weights to 0. What differs by less than is shown is no difference. `keeps_best` says that
    the best epoch was kept already.
    """
    found = [_lost(before, after, task, keeps_best) for before, after in pairwise(rows) if _heals(before, after)]
    return tuple(text for text in found if text is not None)


def _heals(before: StageRow, after: StageRow) -> bool:
    return after.params == before.params and "residual" not in after.extra


def _lost(before: StageRow, after: StageRow, task: Task, keeps_best: bool) -> str | None:
    name = task.primary
    old, new = (before.metrics or {}).get(name), (after.metrics or {}).get(name)
    if old is None or new is None or not _is_worse(new, old, name, task):
        return None
    verb = "lowered" if new < old else "raised"
    told = f"{after.name} {verb} {name} from {format_metric(name, old)} to {format_metric(name, new)}"
    return f"{told}; {_advice(old, after, task, keeps_best)}"


def _is_worse(new: float, old: float, name: str, task: Task) -> bool:
    return format_metric(name, new) != format_metric(name, old) and (new < old) == task.higher_is_better


def _advice(old: float, after: StageRow, task: Task, keeps_best: bool) -> str:
    if not after.epochs:
        return "leave --recalibrate and --reconstruct out, or give them more batches"
    measured = [epoch for epoch in after.history if task.primary in epoch]
    choose = max if task.higher_is_better else min
    best = choose(measured, key=lambda epoch: epoch[task.primary], default=None)
    if best is not None and not keeps_best and not _is_worse(best[task.primary], old, task.primary, task):
        reached = format_metric(task.primary, best[task.primary])
        return f"epoch {best['epoch']:.0f} had {reached}, which --keep-best keeps"
    return "try a smaller --lr, or do without it"
