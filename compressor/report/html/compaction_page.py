"""The page of `compact`; it must never hold how anything was removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compressor.report.html.history import provenance
from compressor.report.html.latencies import times_beside
from compressor.report.html.page import About, Tile, folded, note, page, section
from compressor.report.html.parts import (
    LayerSizes,
    before_after,
    layer_sizes,
    primary,
    speedup_tile,
    stations,
    trade_off,
)
from compressor.report.html.width_bars import WIDTHS_LEAD, Width, widths_figure
from compressor.report.latency import latency_line
from compressor.report.text import duration, metric, percent, plural, shape
from compressor.units import format_count, format_macs, format_ratio

if TYPE_CHECKING:
    from compressor.analysis import LayerCost, LayerLatency
    from compressor.compaction import CompactReport
    from compressor.report.html.markup import Markup
    from compressor.timing import CutLatency

_REASONS = 12


def compact_page(
    report: CompactReport,
    about: About,
    before: Sequence[LayerCost] = (),
    after: Sequence[LayerCost] = (),
    latencies: Sequence[LayerLatency] = (),
    threads: int = 1,
    latency: CutLatency | None = None,
) -> str:
    """The speed-up, what was removed, that the rest computes the same, layer by layer also in time, what stayed."""
    lead = f"{plural(report.n_units_removed, 'unit')} removed in {duration(report.seconds)}. {_agreement(report)}"
    left = {cost.name: cost for cost in after}
    rows = [_sizes(cost, left.get(cost.name)) for cost in before]
    way = stations(about.record) if about.record is not None else []
    sections = [
        note(line.replace("\n", "; ")) if (line := latency_line(latency)) else None,
        _widths(before, left),
        layer_sizes(rows, "What each layer held (grey) and what is left of it; norms with the layer they normalise."),
        _latencies(latencies, threads),
        trade_off(way, "What every command made of the model."),
        _kept(report.skipped),
        provenance(about),
    ]
    return page(about, about.title, lead, [*speedup_tile(latency), *_tiles(report)], sections)


def _tiles(report: CompactReport) -> list[Tile]:
    macs = (
        f"from {format_macs(report.dense_macs)}, {format_ratio(report.dense_macs / report.compact_macs)} fewer"
        if report.compact_macs
        else "none left"
    )
    fewer = before_after(report.dense_params, report.compact_params)
    share = percent(report.still_zeroed / report.compact_params) if report.compact_params else "0 %"
    tiles = [
        Tile("Parameters", format_count(report.compact_params), fewer),
        Tile("MACs", format_macs(report.compact_macs), macs),
        Tile("Still zero", format_count(report.still_zeroed), f"{share} of what is left"),
    ]  # fmt: skip
    if report.agreement is not None:
        limit = f"in float64, limit {report.agreement.float64_limit:.0e}"
        tiles.append(Tile("Differs from masked", f"{report.agreement.float64_relative:.0e}", limit))
    measured = primary(report.metrics or {})
    if measured is not None and report.metrics:
        tiles.append(Tile(measured.capitalize(), metric(measured, report.metrics[measured]), "after compaction"))
    return tiles


def _agreement(report: CompactReport) -> str:
    check = report.agreement
    if check is None:
        norms = plural(len(report.rescaled), "norm")
        return f"Not equal to the masked model by intention: {norms} over fewer features (--through-norm rescale)."
    where = "random and real" if check.on_data else "random"
    return (
        f"On {check.n_inputs} {where} inputs the outputs differ from those of the masked model by "
        f"{check.float64_relative:.1e} in float64 and {check.float32_relative:.1e} in float32, relative to the largest."
    )


def _sizes(before: LayerCost, after: LayerCost | None) -> LayerSizes:
    if after is None:
        return LayerSizes(before.name, (before.params, 0), (before.macs, 0), shape(before.weight_shape), before.of)
    changed = before.weight_shape != after.weight_shape
    told = shape(before.weight_shape) + (f" → {shape(after.weight_shape)}" if changed else "")
    return LayerSizes(before.name, (before.params, after.params), (before.macs, after.macs), told, before.of)


def _widths(before: Sequence[LayerCost], left: Mapping[str, LayerCost]) -> Markup | None:
    rows: list[Width] = []
    for cost in before:
        if cost.filters is not None:
            after = left.get(cost.name)
            rows.append(Width(cost.name, cost.filters[0], after.filters[0] if after and after.filters else 0))
    drawn = widths_figure(rows)
    return section("What is left", WIDTHS_LEAD, drawn) if drawn else None


def _latencies(latencies: Sequence[LayerLatency], threads: int) -> Markup | None:
    if not latencies:
        return None
    lead = (
        f"Each layer by itself in onnxruntime, {plural(threads, 'thread')}, batch 1, before and after in turns. What a "
        "network does between its layers is not in it: compress bench --profile shows that."
    )
    left = {each.name: each.after_s for each in latencies if each.after_s is not None}
    return section("Latency by layer", lead, times_beside({each.name: each.before_s for each in latencies}, left))


def _kept(reasons: Sequence[str]) -> Markup | None:
    if not reasons:
        return None
    rest = [note(text) for text in reasons[_REASONS:]]
    return section(
        "What stayed", "Units that are cut but could not be taken out, and why.",
        [note(text) for text in reasons[:_REASONS]], folded(f"{len(rest)} more", rest) if rest else None,
    )  # fmt: skip
