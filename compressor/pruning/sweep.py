"""`sweep`: one network pruned to several ratios, each from the start, as rows that a broken-off run goes on from.

It must never know how a ratio is reached.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from compressor.asking import PruneSettings
from compressor.atomic import atomic_write
from compressor.cost import Stopwatch
from compressor.data import DataSource, Task
from compressor.errors import TrainingError, UsageError, first_line
from compressor.program import Program
from compressor.progress import Progress
from compressor.pruning.closing import Speedup
from compressor.pruning.prune import prune
from compressor.pruning.pruned import PruneReport
from compressor.pruning.run import identity_of
from compressor.schema import read_as, read_json


@dataclass(frozen=True)
class SweepRow:
    """One ratio: asked and got, what is left, and what was measured at the end. `metrics` is None without data."""

    asked: float
    got: float
    params: int
    macs: int
    metrics: dict[str, float] | None
    seconds: float


@dataclass(frozen=True)
class _Kept:
    """What stands in the file of a row."""

    identity: str
    row: SweepRow


def sweep(
    program: Program,
    settings: PruneSettings,
    ratios: Sequence[float],
    folder: Path,
    *,
    data: DataSource | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
    speedup: Speedup | None = None,
    on_pruned: Callable[[float, Program, PruneReport], None] | None = None,
) -> tuple[SweepRow, ...]:
    """A row for each ratio, in their order; `settings.ratio` is replaced by each.

    `folder` receives `<ratio>x.json` when a ratio is done, and holds its resume point while it is at work: called again
    with the same program, settings and data, what is done is read and what was broken off goes on. `on_pruned` gets
    each pruned program before its row is written. `model` as of `prune`; every ratio starts from it as it is given.

    Raises:  UsageError for no ratios, or one twice; TrainingError if the folder holds rows of another sweep.
    """
    if not ratios or len(set(ratios)) != len(ratios):
        raise UsageError("a sweep needs ratios, each once, as in 2x,4x,8x")
    folder.mkdir(parents=True, exist_ok=True)
    given = {} if model is None else copy.deepcopy(model.state_dict())
    rows: list[SweepRow] = []
    for ratio in ratios:
        asked = replace(settings, ratio=ratio)
        file, point = folder / f"{ratio:g}x.json", folder / f"{ratio:g}x.resume"
        identity = identity_of(program, asdict(asked), data, task)
        row = _read(file, identity)
        if row is None:
            if model is not None:  # with tensors of its own: those that it has are of the ratio before
                model.load_state_dict(copy.deepcopy(given), assign=True)
            pruned, report = prune(
                program, asked, data=data, task=task, model=model, progress=progress, stopwatch=stopwatch,
                speedup=speedup, resume_file=point, resume=point.exists(),
            )  # fmt: skip
            if on_pruned is not None:
                on_pruned(ratio, pruned, report)
            row = _row(ratio, report)
            with atomic_write(file, force=True) as temporary:
                temporary.write_text(json.dumps({"identity": identity, "row": asdict(row)}, indent=1))
            point.unlink(missing_ok=True)
        rows.append(row)
    return tuple(rows)


def _row(ratio: float, report: PruneReport) -> SweepRow:
    metrics = next((stage.metrics for stage in reversed(report.stages) if stage.metrics), None)
    return SweepRow(ratio, report.got, report.kept_params, report.kept_macs, metrics, report.seconds)


def _read(file: Path, identity: str) -> SweepRow | None:
    """The row of a ratio that is done.

    Raises:  TrainingError if it is of another sweep, or no row at all.
    """
    if not file.exists():
        return None
    try:
        found = read_as(_Kept, read_json(file, TrainingError), TrainingError, str(file))
    except TrainingError as error:
        raise TrainingError(
            f"{file}: is no row of a sweep; delete it, or sweep into another folder\n{first_line(error)}"
        ) from error
    if found.identity != identity:
        raise TrainingError(
            f"{file}: belongs to a sweep of another model, other data or other options\n"
            "sweep into another folder, or delete it"
        )
    return found.row
