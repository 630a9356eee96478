"""What `compress prune` is asked and what follows from that before anything runs; it must never run it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from compressor.asking import PruneSettings, Trainings
from compressor.asking.score import NEEDS_DATA
from compressor.cli.html_report import ReportOptions
from compressor.cli.latency import LatencyOptions, clock
from compressor.cli.options import GateOptions, ModelOptions, OutputOptions, RecipeOptions, ResumeOptions, option
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.cost import Stopwatch
    from compressor.pruning import PruneReport


@dataclass(frozen=True, kw_only=True)
class PruneOptions(
    ResumeOptions, LatencyOptions, ReportOptions, RecipeOptions, GateOptions, OutputOptions, ModelOptions
):
    """Options of `compress prune`, beside those that `PruneSettings` and `Trainings` declare."""

    asks = (PruneSettings, Trainings)
    save_every: Annotated[
        bool,
        option("--save-every", help="Also write the network after every step and stage, as MODEL.pruned.1.pt."),
    ] = False
    dry_run: Annotated[
        bool,
        option("--dry-run", "-n", help="Show what would be cut by the weights as they are; write nothing."),
    ] = False


def prune_settings(options: PruneOptions) -> PruneSettings:
    """What the options ask for, on a device that is still open.

    Raises:  UsageError for a value that cannot be read or is out of range.
    """
    settings = options.request(PruneSettings, seed=options.seed)
    trained = options.request(Trainings).recipes(options.said, searches=settings.searches)
    return replace(settings, prune_recipe=trained.search, stage_recipe=trained.between, retrain_recipe=trained.last)


def training_of(options: PruneOptions) -> str | None:
    """The reference of the user's own training, where there is one.

    Raises:  UsageError for what goes with the tool's own training only.
    """
    ref = options.request(Trainings).train
    for flag, is_said in (("--resume", options.resume), ("--save-every", options.save_every)):
        if ref is not None and is_said:
            raise UsageError(f"--train {ref}: {flag} is of the tool's own training; save and load in your code")
    return ref


def stopwatch_of(settings: PruneSettings) -> Stopwatch | None:
    """A clock with one thread of onnxruntime, where something may be timed."""
    return clock() if settings.may_take_time else None


def needed_for(settings: PruneSettings) -> str | None:
    """What data is needed for, if for anything."""
    if settings.recipes:
        return f"pruning by {settings.method} with training"
    if settings.recovery:
        return "--reconstruct and --recalibrate"
    return f"--score {settings.score}" if settings.score in NEEDS_DATA else None


def measured_for_record(report: PruneReport) -> dict[str, Any]:
    """What a checkpoint remembers of the step that made it."""
    counted = {"asked": report.asked, "got": report.got, "of": report.of}
    first = report.stages[0].metrics
    # As a resume point holds them: a count that it read is a float.
    before = None if first is None else {name: float(value) for name, value in first.items()}
    sizes = {"params": report.kept_params, "macs": report.kept_macs, "before": before}
    return {**counted, **sizes, **metrics_of(report)}


def metrics_of(report: PruneReport) -> dict[str, float]:
    """What was measured last; empty without data."""
    return next((row.metrics for row in reversed(report.stages) if row.metrics), None) or {}
