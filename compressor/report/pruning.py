"""The tables of `prune` and `retrain`; it must never hold how pruning or training works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from compressor.asking.pattern import Pattern
from compressor.report.console import group, lines, make_table
from compressor.report.latency import latency_line
from compressor.report.text import duration, metric, percent, shorten, shorten_all, without_counts, written
from compressor.units import format_count, format_macs, format_ratio

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.pruning.pruned import LayerCut, PruneReport, RetrainReport, StageRow
    from compressor.pruning.sweep import SweepRow
    from compressor.timing.measured import CutLatency

_ROWS = 40
_COLUMNS = 4
"""Measured values beside the fixed columns of a stage: more do not fit."""


def prune_table(
    report: PruneReport,
    *,
    latency: CutLatency | None = None,
    output: str | None = None,
    size_bytes: int | None = None,
    every_row: bool = False,
    would: str | None = None,
) -> RenderableType:
    """Asked and got, the latency, stage by stage and layer by layer; `would` names the method of a dry run."""
    return group(
        lines(*_headline(report, would), latency_line(latency)),
        _stages(report.stages) if len(report.stages) > 1 or _measured(report.stages) else None,
        *(_search(stage) for stage in report.stages if every_row and stage.residuals),
        _cuts(report.layers, report.pattern, None if every_row else _ROWS),
        lines(*(f"warning: {warning}" for warning in report.warnings), without_counts(report.uncounted_operators)),
        lines(written(output, size_bytes, report.seconds)),
    )


def _headline(report: PruneReport, would: str | None) -> list[str]:
    asked = "" if report.asked is None else f"asked {format_ratio(report.asked)} in {report.of}, "
    first = f"{report.method}, {report.pattern}: {asked}got {format_ratio(report.got)}"
    first += "" if asked else f" in {report.of}"
    if would is not None:
        chosen = "" if would == report.method else f"; {would} chooses while it trains, and may spread it otherwise"
        first = f"dry run, nothing written. By the weights as they are{chosen}\n{first}"
    pattern = report.pattern
    counted = "once compacted" if pattern.is_physical else "without the zeros"
    counted += ", with cut columns left out" if pattern.weights == "shape" else ""
    rows = [
        first,
        f"parameters {format_count(report.dense_params)} -> {format_count(report.kept_params)} "
        f"({_ratio(report.dense_params, report.kept_params)}), "
        f"MACs {format_macs(report.dense_macs)} -> {format_macs(report.kept_macs)} "
        f"({_ratio(report.dense_macs, report.kept_macs)}), {counted}",
    ]
    if report.zeroed:
        rows.append(f"weights set to zero: {format_count(report.zeroed)}")
    if not pattern.is_physical:
        left = f"{format_count(report.compact_params)} parameters, {format_macs(report.compact_macs)} MACs"
        rows.append(f"{pattern.text} leaves zeros where they are: {left} once compacted")
    return rows


def _ratio(dense: int, kept: int) -> str:
    return format_ratio(dense / kept) if kept else "all gone"


def _measured(stages: Sequence[StageRow]) -> bool:
    return any(stage.metrics for stage in stages)


def _stages(stages: Sequence[StageRow]) -> Table:
    names = _value_names(stages)
    table = make_table("Stage", ">Ratio", ">Params", ">Epochs", *(f">{shorten(n, 14)}" for n in names), ">Time")
    for stage in stages:
        values = {**stage.extra, **(stage.metrics or {})}
        cells = [metric(name, values[name]) if name in values else "" for name in names]
        table.add_row(
            shorten(stage.name, 24),
            format_ratio(stage.ratio),
            format_count(stage.params),
            str(stage.epochs) if stage.epochs else "",
            *cells,
            duration(stage.seconds),
        )
    return table


def _value_names(stages: Sequence[StageRow]) -> list[str]:
    """Metrics, the loss behind what it stands for, then the rest, without the number of samples."""
    names = dict.fromkeys(name for stage in stages for name in stage.metrics or {})
    names = {name: None for name in sorted(names, key=lambda name: name == "loss")}
    names |= dict.fromkeys(name for stage in stages for name in stage.extra)
    return [name for name in names if name != "n"][:_COLUMNS]


def _search(stage: StageRow) -> RenderableType:
    """What a search did: its epochs, and how far every tensor was from its aim when it ended."""
    table = make_table(f"Drawn by {stage.name}", ">Residual")
    names = shorten_all(stage.residuals, 48)
    for name, residual in stage.residuals.items():
        table.add_row(names[name], f"{residual:.3g}")
    return group(_epochs(stage.history), table)


def _cuts(layers: Sequence[LayerCut], pattern: Pattern, limit: int | None) -> RenderableType | None:
    if not layers:
        return None
    noun = "filters" if pattern.is_physical else "weights"
    by_column = [">Columns"] if any(cut.columns for cut in layers) else []
    table = make_table("Layer", f">Kept {noun}", ">Of", *by_column, ">Kept params", ">Of", ">Ratio", ">Kept")
    names = shorten_all([cut.name for cut in layers[:limit]], 36)
    for cut in layers[:limit]:
        table.add_row(
            names[cut.name],
            format_count(cut.kept),
            format_count(cut.dense),
            *(["/".join(map(format_count, cut.columns)) if cut.columns else ""] if by_column else []),
            format_count(cut.kept_params),
            format_count(cut.dense_params),
            _ratio(cut.dense_params, cut.kept_params),
            percent(cut.kept_params / cut.dense_params) if cut.dense_params else "",
        )
    hidden = len(layers) - len(layers[:limit])
    return group(table, lines(f"… and {hidden} more layers; -v shows all") if hidden else None)


def retrain_table(
    report: RetrainReport, output: str | None, size_bytes: int | None, *, every_row: bool = False
) -> RenderableType:
    """Before and after; with every row each epoch too."""
    return group(
        _stages(report.stages),
        _epochs(report.history) if every_row and report.history else None,
        lines(
            *(f"warning: {warning}" for warning in report.warnings),
            f"stopped early: {report.stopped}" if report.stopped else None,
        ),
        lines(written(output, size_bytes, report.seconds)),
    )


def sweep_table(rows: Sequence[SweepRow], output: str) -> RenderableType:
    """Ratio against what it costs, a row for each."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row.metrics or {}) if name != "n"]
    table = make_table(">Asked", ">Got", ">Params", ">MACs", *(f">{name}" for name in names), ">Time")
    for row in rows:
        values = row.metrics or {}
        table.add_row(
            format_ratio(row.asked),
            format_ratio(row.got),
            format_count(row.params),
            format_macs(row.macs),
            *(metric(name, values[name]) if name in values else "" for name in names),
            duration(row.seconds),
        )
    return group(table, lines(f"wrote {output}"))


def _epochs(history: Sequence[Mapping[str, float]]) -> Table:
    fixed = ("epoch", "lr", "train_loss", "seconds", "n")
    names = [name for name in dict.fromkeys(key for row in history for key in row) if name not in fixed]
    names = names[:_COLUMNS]
    table = make_table(">Epoch", ">Rate", ">Train loss", *(f">{name}" for name in names), ">Time")
    for row in history:
        table.add_row(
            f"{row['epoch']:.0f}",
            f"{row['lr']:.3g}",
            f"{row['train_loss']:.4g}",
            *(metric(name, row[name]) if name in row else "" for name in names),
            duration(row["seconds"]),
        )
    return table
