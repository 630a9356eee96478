"""The page of `analyze`; it must never hold how anything was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressor.report.html.charts import Axis, Line, line_chart
from compressor.report.html.couplings import couplings
from compressor.report.html.history import provenance
from compressor.report.html.markup import Child, Markup, tag
from compressor.report.html.page import About, Column, Tile, bars, figure, folded, note, page, section, table
from compressor.report.html.parts import axis_of, primary
from compressor.report.sensitivity import merged, nearest, typical_shares
from compressor.report.text import few, metric, percent, plural, shape, without_counts
from compressor.units import format_bytes, format_count, format_macs

if TYPE_CHECKING:
    from compressor.analysis import Analysis, LayerRow, UnitGroup
    from compressor.asking import Sensitivity

_BYTES_PER_WEIGHT = 4
_NAMED = 4
"""Curves that are told apart by colour and name; more would need a legend, and nobody reads those."""
_STYLES = ("s2", "s4", "s3", "s1")


def analysis_page(found: Analysis, about: About, scan: Sensitivity | None = None) -> str:
    """What the network is made of, what a scan says of its layers, and what goes together."""
    return page(
        about,
        about.title,
        f"{plural(found.n_units, 'unit')} can be removed; {percent(found.prunable_params / max(found.n_params, 1))} "
        f"of the parameters belong to one.",
        _tiles(found),
        [_layers(found), _sensitivity(scan) if scan is not None else None, _couplings(found), _pinned(found),
         [note(text) for text in found.notes], provenance(about)],
    )  # fmt: skip


def _tiles(found: Analysis) -> list[Tile]:
    zeroed = f"{percent(found.n_zeroed / found.n_params)} of them zero" if found.n_zeroed else "none of them zero"
    measured = primary(found.metrics or {})
    tiles = [
        Tile("Parameters", format_count(found.n_params), zeroed),
        Tile(
            "Size",
            format_bytes(found.n_params * _BYTES_PER_WEIGHT if found.n_bytes is None else found.n_bytes),
            f"as {found.stored_as}",
        ),
        Tile("MACs", format_macs(found.macs), "one sample"),
        Tile("Activations", format_macs(found.n_activations), "values, one sample"),
    ]
    if measured is not None and found.metrics:
        n = found.metrics.get("n")
        aside = f"on {format_count(int(n))} samples" if n else ""
        tiles.append(Tile(measured.capitalize(), metric(measured, found.metrics[measured]), aside))
    return tiles


def _layers(found: Analysis) -> Markup:
    columns = (
        Column("Layer", "name"), Column("Kind", "left", less=True), Column("Weight", "mono", less=True),
        Column("Output", "mono", less=True), Column("Parameters", "bar"), Column(""), Column("MACs", "bar"),
        Column(""), Column("Zero", less=True), Column("Prunable", less=True),
    )  # fmt: skip
    most = max((row.params for row in found.layers), default=0), max((row.macs for row in found.layers), default=0)
    return section(
        "Layers",
        "Where the parameters and where the multiply-adds are; the longest bar is the largest layer.",
        table(
            columns,
            [_layer(row, found, most) for row in found.layers],
            ("all", "", "", "", "", format_count(found.n_params), "", format_macs(found.macs), "", ""),
        ),
    )


def _layer(row: LayerRow, found: Analysis, most: tuple[int, int]) -> tuple[Child, ...]:
    pinned = f"pinned: {row.pinned}" if row.pinned else ""
    prunable = tag("span", f"{row.n_prunable}/{row.n_filters}", title=pinned or None)
    params = f"{row.name}: {percent(row.params / max(found.n_params, 1))} of the parameters"
    macs = f"{row.name}: {percent(row.macs / max(found.macs, 1))} of the MACs"
    return (
        row.name, row.kind, shape(row.weight_shape), shape(row.output_shape),
        bars([(row.params / max(most[0], 1), "kept")], params), format_count(row.params),
        bars([(row.macs / max(most[1], 1), "kept2")], macs), format_macs(row.macs),
        percent(row.sparsity), prunable,
    )  # fmt: skip


def _sensitivity(scan: Sensitivity) -> Markup:
    y = axis_of(scan.metric)
    drawing = line_chart(
        f"{scan.metric} against the removed share of one layer",
        f"{plural(len(scan.curves), 'layer')}; {scan.metric} is {y.format(scan.dense)} with nothing cut",
        _curves(scan),
        Axis("removed share of the layer", lambda v: f"{v * 100:.0f} %", ends=(0.0, 1.0)),
        y,
    )
    lead = (
        f"The {scan.metric} when one layer alone loses a share of its "
        f"{'weights' if scan.pattern == 'unstructured' else 'filters'} ({scan.pattern}) and nothing is retrained, on "
        f"{plural(scan.n_samples, 'validation sample')}. Steep layers are the ones to spare."
    )
    if len(merged(scan)) < len(scan.curves):
        lead += " Layers whose units go together have one curve and stand in one row."
    unmeasured = f"Not reached in time: {', '.join(scan.unmeasured)}." if scan.unmeasured else None
    shown = tag("div", figure(scan.metric.capitalize(), "one layer cut", drawing), _heat(scan), class_="split")
    return section("Sensitivity", lead, shown, note(unmeasured) if unmeasured else None)


def _curves(scan: Sensitivity) -> list[Line]:
    """All curves; the most sensitive layers have a name and a colour, the others stand behind."""
    together = {alike[0]: alike for alike in merged(scan)}
    ranked = sorted(together, key=lambda layer: -_loss(scan, layer))
    named = ranked if len(ranked) <= _NAMED else [*ranked[: _NAMED - 1], ranked[-1]]
    lines = [Line(few(alike), _points(scan, layer), "faint", named=False)
             for layer, alike in together.items() if layer not in named]  # fmt: skip
    styles = dict(zip(named, _STYLES, strict=False))
    return [*lines, *(Line(_of_all(together[layer]), _points(scan, layer), styles[layer], dots=True)
                      for layer in named)]  # fmt: skip


def _of_all(alike: Sequence[str]) -> str:
    """`conv1 +3`: one of the layers with this curve, and how many more there are."""
    return alike[0] if len(alike) == 1 else f"{alike[0]} +{len(alike) - 1}"


def _points(scan: Sensitivity, layer: str) -> list[tuple[float, float]]:
    return [(0.0, scan.dense), *scan.curves[layer]]


def _loss(scan: Sensitivity, layer: str) -> float:
    """What the layer loses on average over its points; infinite where the metric is no number."""
    sign = 1.0 if scan.higher_is_better else -1.0
    losses = [sign * (scan.dense - value) for _, value in scan.curves[layer]]
    return sum(losses) / len(losses) if all(math.isfinite(loss) for loss in losses) else math.inf


def _heat(scan: Sensitivity) -> Markup:
    """The numbers, the darker the more is lost."""
    shares = typical_shares(scan)
    columns = [Column("Layer", "name"), *(Column(f"−{share * 100:.0f} %", "heat") for share in shares)]
    most = max((abs(scan.dense - v) for c in scan.curves.values() for _, v in c if math.isfinite(v)), default=1.0)
    rows: list[list[Child]] = []
    for alike in merged(scan):
        layer, curve = few(alike, 3), scan.curves[alike[0]]
        cells: dict[int, Markup] = {}
        for share, value in curve:
            loss = scan.dense - value if scan.higher_is_better else value - scan.dense
            depth = min(max(loss / (most or 1.0), 0.0), 1.0) if math.isfinite(loss) else 1.0
            colour = f"background:color-mix(in srgb, var(--s2) {depth * 45:.0f}%, transparent)"
            told = f"{few(alike)} without {share * 100:.1f} %: {metric(scan.metric, value)}"
            cells[nearest(shares, share)] = tag("span", metric(scan.metric, value), style=colour, title=told)
        name = tag("span", layer, title=", ".join(alike), class_="long") if len(alike) > 1 else layer
        rows.append([name, *(cells.get(i) for i in range(len(shares)))])
    return table(columns, rows)


def _couplings(found: Analysis) -> Markup | None:
    drawn = couplings(found.groups, found.layers)
    if drawn is None:
        return None
    drawing, n_tracks, n_rows = drawn
    shown = figure("Widths", f"{n_tracks} of {len(found.groups)} groups, {n_rows} layers", drawing)
    lead = (
        "Each track is one width of the network: removing one of its units takes a slice out of every layer that has "
        "a dot on it. Long tracks are residual streams."
    )
    return section("What goes together", lead, tag("div", shown, _groups(found.groups), class_="split"))


def _groups(groups: tuple[UnitGroup, ...]) -> Markup:
    columns = (Column("Units"), Column("Parameters each"), Column("Removed together from", "text"))
    rows = [(format_count(g.n_units), f"{g.params_per_unit:,.0f}", few(g.layers)) for g in groups]
    if len(rows) <= 24:
        return table(columns, rows)
    return tag("div", table(columns, rows[:20]), folded(f"{len(rows) - 20} more", table(columns, rows[20:])))


def _pinned(found: Analysis) -> Markup | None:
    uncounted = without_counts(found.uncounted_operators)
    if not found.pins and not found.unknown_operators and uncounted is None:
        return None
    columns = (Column("Indices"), Column("Because", "text"), Column("Where", "text"))
    rows = [(format_count(pin.n_indices), pin.reason, pin.where) for pin in found.pins]
    unknown = (
        f"No axis rule for {', '.join(found.unknown_operators)}: everything that reaches them stays whole."
        if found.unknown_operators
        else None
    )
    return section(
        "What stays", "Indices that may not be removed, and why.",
        table(columns, rows) if rows else None, note(unknown) if unknown else None,
        note(f"{uncounted}.") if uncounted else None,
    )  # fmt: skip
