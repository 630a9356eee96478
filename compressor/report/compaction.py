"""The table of `compact`; it must never hold how anything was removed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from compressor.program.agreement import basis
from compressor.report.console import group, lines, make_table
from compressor.report.latency import latency_line
from compressor.report.lowering import lowering_lines
from compressor.report.text import (
    decided,
    few,
    metrics,
    percent,
    plural,
    shape,
    shorten_all,
    without_counts,
    written,
)
from compressor.units import format_count, format_fewer, format_macs

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.compaction.removed import CompactReport, Kept, LayerChange, Proof
    from compressor.timing.measured import CutLatency

_ROWS = 40
_SKIPS = 8


def compact_table(
    report: CompactReport, output: str | None, size_bytes: int | None, *, every_row: bool = False,
    latency: CutLatency | None = None,
) -> RenderableType:  # fmt: skip
    """Removed and merely zeroed apart, the check, layer by layer, and why anything stayed."""
    return group(
        _totals(report),
        lines(*_headline(report), latency_line(latency)),
        _layers(report.layers, None if every_row else _ROWS),
        lowering_lines(report.lowered, None if every_row else _ROWS),
        _constants(report, None if every_row else _SKIPS),
        _kept(report.kept, None if every_row else _SKIPS),
        _skips(report.skipped, None if every_row else _SKIPS),
        lines(*(f"warning: {warning}" for warning in report.warnings), without_counts(report.uncounted_operators)),
        lines(written(output, size_bytes, report.seconds)),
    )


def _totals(report: CompactReport) -> Table:
    table = make_table("", ">Dense", ">Before", ">After", ">Dense ÷ after")
    table.add_row(
        "parameters",
        format_count(report.dense_params),
        format_count(report.masked_params),
        format_count(report.compact_params),
        format_fewer(report.dense_params, report.compact_params, "all gone"),
    )
    table.add_row(
        "MACs",
        format_macs(report.dense_macs),
        "",
        format_macs(report.compact_macs),
        format_fewer(report.dense_macs, report.compact_macs, "all gone"),
    )
    return table


def _headline(report: CompactReport) -> list[str]:
    share = percent(report.still_zeroed / report.compact_params) if report.compact_params else "0 %"
    rows = [
        f"removed {plural(report.n_units_removed, 'unit')}, {format_count(report.removed)} parameters; "
        f"still zeroed {format_count(report.still_zeroed)} ({share} of what is left)",
        *_dead(report),
        _agreement(report.agreement) if report.agreement is not None else _not_equal(report.rescaled),
    ]
    measured = metrics(report.metrics)
    return [*rows, f"measured: {measured}"] if measured else rows


def _dead(report: CompactReport) -> list[str]:
    """What was zeroed before, by masks or by anything else, and where constants went."""
    parts = [f"zeroed before {format_count(report.zeroed)}"] if report.zeroed else []
    if report.folded:
        n_channels = sum(folded.n_channels for folded in report.folded)
        parts.append(f"{plural(n_channels, 'constant channel')} folded into {plural(len(report.folded), 'tensor')}")
    if report.branches:
        parts.append(f"{plural(len(report.branches), 'constant operand')} gone")
    return ["; ".join(parts)] if parts else []


def _constants(report: CompactReport, limit: int | None) -> RenderableType | None:
    rows = [(folded.layer, str(folded.n_channels), f"folded into {folded.into}") for folded in report.folded]
    rows += [(branch.layer, "all", branch.became) for branch in report.branches]
    return _short_table(("Constants", ">Channels", "What became of them"), rows, limit)


def _kept(kept: Sequence[Kept], limit: int | None) -> RenderableType | None:
    rows = [(entry.layer, str(entry.n_filters), entry.reason) for entry in kept]
    return _short_table(("Zeroed, but kept", ">Filters", "Why"), rows, limit)


def _short_table(
    columns: tuple[str, ...], rows: Sequence[tuple[str, str, str]], limit: int | None
) -> RenderableType | None:
    if not rows:
        return None
    table = make_table(*columns)
    names = shorten_all([layer for layer, _, _ in rows[:limit]], 44)
    for layer, count, text in rows[:limit]:
        table.add_row(names[layer], count, text)
    hidden = len(rows) - len(rows[:limit])
    return group(table, lines(f"… and {hidden} more rows; -v shows all") if hidden else None)


def _not_equal(rescaled: Sequence[str]) -> str:
    return (
        f"NOT equal to the masked model, and not verified: {plural(len(rescaled), 'norm')} over fewer features"
        f" (--through-norm rescale): {few(rescaled, 3)}; retrain it"
    )


def _agreement(check: Proof) -> str:
    where = "random and real" if check.on_data else "random"
    because = basis(check.float32_judgment, check.float32_noise)
    told = (
        f"agrees with the masked model on {check.n_inputs} {where} inputs: "
        f"float64 {check.float64_relative:.1e} (limit {check.float64_limit:.0e}), "
        f"float32 {check.float32_relative:.1e} (limit {check.float32_limit:.0e}{f': {because}' if because else ''})"
    )
    return told + (f"; {decided(check.decisions)}" if check.decisions else "")


def _layers(layers: Sequence[LayerChange], limit: int | None) -> RenderableType | None:
    changed = [layer for layer in layers if layer.before != layer.after]
    if not changed:
        return None
    table = make_table("Parameter", ">Before", ">After", ">Kept")
    names = shorten_all([layer.name for layer in changed[:limit]], 44)
    for layer in changed[:limit]:
        if not layer.after:
            table.add_row(names[layer.name], shape(layer.before), "gone", "0 %")
            continue
        kept = math.prod(layer.after) / max(math.prod(layer.before), 1)
        table.add_row(names[layer.name], shape(layer.before), shape(layer.after), percent(kept))
    hidden = len(changed) - len(changed[:limit])
    return group(table, lines(f"… and {hidden} more parameters; -v shows all") if hidden else None)


def _skips(skipped: Sequence[str], limit: int | None) -> RenderableType | None:
    hidden = len(skipped) - len(skipped[:limit])
    more = f"… and {plural(hidden, 'more reason')}; -v shows all" if hidden else None
    return lines(*(f"kept: {reason}" for reason in skipped[:limit]), more)
