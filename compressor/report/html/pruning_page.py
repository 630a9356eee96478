"""The pages of `prune` and `retrain`; it must never hold how pruning or training works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compressor.report.html.history import provenance
from compressor.report.html.markup import Child, Markup
from compressor.report.html.page import About, Column, Tile, note, page, section, table, warnings
from compressor.report.html.parts import (
    LayerSizes,
    before_after,
    gates,
    layer_sizes,
    primary,
    speedup_tile,
    stations,
    trade_off,
    training,
)
from compressor.report.html.width_bars import WIDTHS_LEAD, Width, widths_figure
from compressor.report.latency import latency_line
from compressor.report.text import duration, metric, plural
from compressor.units import format_count, format_macs, format_ratio

if TYPE_CHECKING:
    from compressor.analysis import LayerCost
    from compressor.pruning import PruneReport, RetrainReport, StageRow
    from compressor.timing import CutLatency


_LAYERS = (
    "What each layer had (grey) and what is left of it once the model is compacted; a norm is counted with the layer "
    "that it normalises."
)


def prune_page(
    report: PruneReport, about: About, costs: Sequence[LayerCost] = (), latency: CutLatency | None = None,
    would: str | None = None, required: Sequence[Mapping[str, Any]] = (),
) -> str:  # fmt: skip
    """The speed-up, asked and got, stage by stage, the course of training, layer by layer; `would` is a dry run's."""
    title = about.title
    asked = f"asked {format_ratio(report.asked)} in {report.of}" if report.asked is not None else f"in {report.of}"
    lead = f"{report.method}, {report.pattern}: {asked}, got {format_ratio(report.got)}, in {duration(report.seconds)}."
    if would is not None:
        lead = f"Dry run, nothing written: by the weights as they are. {lead}"
    tiles = [
        *speedup_tile(latency),
        Tile("Ratio", format_ratio(report.got), asked),
        Tile("Parameters", format_count(report.kept_params), before_after(report.dense_params, report.kept_params)),
        Tile("MACs", format_macs(report.kept_macs), _macs(report.dense_macs, report.kept_macs)),
        *_measured(report.stages),
    ]
    zeroed = f"{format_count(report.zeroed)} more weights are zero and stay where they are." if report.zeroed else None
    kept = {cut.name: f"{format_count(cut.kept)} of {format_count(cut.dense)}" for cut in report.layers}
    rows = [
        LayerSizes(c.name, (c.params, c.kept_params), (c.macs, c.kept_macs), kept.get(c.name, ""), c.of) for c in costs
    ]
    sections: list[Child] = [
        warnings(report.warnings),
        note(line.replace("\n", "; ")) if (line := latency_line(latency)) else None,
        gates(required),
        _widths(report),
        _stages(report.stages),
        training([(row.name, row.history) for row in report.stages], "Every epoch of this run, stage after stage."),
        layer_sizes(rows, _LAYERS, _kept_what(report)),
        note(zeroed) if zeroed else None,
        provenance(about),
    ]
    return page(about, title, lead, tiles, sections)


def _widths(report: PruneReport) -> Markup | None:
    if report.pattern.weights == "shape" and report.pattern.units is None:
        columns = [(cut.name, cut.columns) for cut in report.layers if cut.columns is not None]
        drawn = widths_figure([Width(name, dense, kept) for name, (kept, dense) in columns], "columns")
    else:
        widths = [Width(cut.name, cut.dense, cut.kept) for cut in report.layers]
        drawn = widths_figure(widths, _kept_what(report).lower())
    return section("What is left", WIDTHS_LEAD, drawn) if drawn else None


def _kept_what(report: PruneReport) -> str:
    return "Filters" if report.pattern.is_physical else "Weights"


def _macs(before: int, after: int) -> str:
    return f"from {format_macs(before)}, {format_ratio(before / after)} fewer" if after else "none left"


def _measured(stages: Sequence[StageRow]) -> list[Tile]:
    """The metric after the last stage, against the first."""
    known = [row.metrics for row in stages if row.metrics]
    measured = primary(known[-1]) if known else None
    if measured is None:
        return []
    last, first = known[-1][measured], known[0].get(measured)
    aside = f"from {metric(measured, first)}" if first is not None and len(known) > 1 else ""
    return [Tile(measured.capitalize(), metric(measured, last), aside)]


def _stages(stages: Sequence[StageRow], way: Sequence[tuple[str, int, float, str]] = ()) -> Markup | None:
    """The stages as a table, and beside it the way they took, or `way`."""
    found = list(way) or [
        (row.name, int(row.params), row.metrics[measured], measured)
        for row in stages
        if row.metrics and (measured := primary(row.metrics)) is not None
    ]
    if len(stages) < 2:
        return None
    values = _table(stages)
    drawn = trade_off(found, "What every stage made of the model.", None if way else values)
    return drawn or section("Stages", "", values)


_DRAWN_ALONE = frozenset({"rho", "penalty", "dual residual"})
"""What a search says of itself in each epoch and the charts show: as columns they push the rest off the page."""


def _table(stages: Sequence[StageRow]) -> Markup:
    names = [n for n in dict.fromkeys(k for row in stages for k in {**(row.metrics or {}), **row.extra}) if n != "n"]
    names = [n for n in names if n not in _DRAWN_ALONE]
    judged = {primary(row.metrics) for row in stages if row.metrics}
    columns = (
        Column("Stage", "name"), Column("Parameters"), Column("Epochs", less=True),
        *(Column(name[:1].upper() + name[1:], less=name not in judged) for name in names), Column("Time", less=True),
    )  # fmt: skip
    rows: list[list[Child]] = []
    for row in stages:
        values = {**row.extra, **(row.metrics or {})}
        rows.append([
            row.name, format_count(row.params), str(row.epochs) if row.epochs else "",
            *(metric(n, values[n]) if n in values else "" for n in names), duration(row.seconds),
        ])  # fmt: skip
    return table(columns, rows)


def retrain_page(report: RetrainReport, about: About) -> str:
    """Before and after, and every epoch between."""
    last = report.stages[-1]
    lead = f"{plural(len(report.history), 'epoch')} in {duration(report.seconds)}."
    if report.n_zeroed:
        lead += f" {format_count(report.n_zeroed)} weights are masked and stayed zero."
    tiles = [Tile("Parameters", format_count(last.params), "that are not zero"), *_measured(report.stages)]
    loss = (last.metrics or {}).get("loss")
    if loss is not None:
        tiles.append(Tile("Loss", metric("loss", loss), "on the validation data"))
    way = stations(about.record) if about.record is not None else []
    sections = [
        warnings(report.warnings),
        note(f"Stopped early: {report.stopped}.") if report.stopped else None,
        training([("retrain", report.history)], "Every epoch."),
        _stages(report.stages, way),
        provenance(about),
    ]
    return page(about, about.title, lead, tiles, sections)
