"""Sections that several pages have: layers before and after, training, the way to the result.

It must never hold what only one command shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compressor.program.record import Record
from compressor.report.html.charts import Axis, Line, Mark, Point, line_chart, point_chart
from compressor.report.html.markup import Child, Markup, tag
from compressor.report.html.page import Column, Tile, bars, charts, figure, folded, section, table
from compressor.report.html.scale import share, short
from compressor.report.text import metric, plural
from compressor.schema import is_number
from compressor.units import format_count, format_fewer, format_macs, format_ratio

if TYPE_CHECKING:
    from compressor.timing import CutLatency

_NO_METRICS = frozenset({"loss", "n", "asked", "got", "of", "removed", "still_zeroed", "params", "macs", "before"})
"""Numbers in a step of the history that are not what the model is measured by."""


@dataclass(frozen=True)
class LayerSizes:
    """Parameters and MACs of one layer before and after; `shape` says how its weight changed, where that is known.

    A row `of` another layer, a norm, is counted with that one.
    """

    name: str
    params: tuple[int, int]
    macs: tuple[int, int]
    shape: str = ""
    of: str = ""


def layer_sizes(rows: Sequence[LayerSizes], lead: str, kept: str = "Weight") -> Markup | None:
    """Each layer's parameters and MACs before (grey) and after (coloured) on one scale; `kept` heads the shapes."""
    shown = [row for row in _with_norms(rows) if row.params[0]]
    if not shown:
        return None
    most_params, most_macs = max(row.params[0] for row in shown), max(max(row.macs[0] for row in shown), 1)
    columns = (
        Column("Layer", "name"), Column(kept, "mono", less=True),
        Column("Parameters", "bar"), Column("Before", less=True), Column("After"), Column("", less=True),
        Column("MACs", "bar", less=True), Column("Before", less=True), Column("After", less=True),
    )  # fmt: skip
    totals = [sum(pair[i] for pair in column) for column in _columns(shown) for i in (0, 1)]
    return section(
        "Layer by layer",
        lead,
        table(
            columns,
            [_layer_row(row, most_params, most_macs) for row in shown],
            ("all", "", "", format_count(totals[0]), format_count(totals[1]),
             format_fewer(totals[0], totals[1], "gone"), "", format_macs(totals[2]), format_macs(totals[3])),
        ),
    )  # fmt: skip


def _with_norms(rows: Sequence[LayerSizes]) -> list[LayerSizes]:
    """The rows without those of norms, which are in the layer that they belong to."""
    names = {row.name for row in rows if not row.of}
    held = [row for row in rows if row.of not in names]  # a shared weight is several rows of one name
    places = {row.name: i for i, row in reversed(list(enumerate(held)))}
    for row in rows:
        if row.of in names:
            owner = held[places[row.of]]
            grown = replace(owner, params=_sum(owner.params, row.params), macs=_sum(owner.macs, row.macs))
            held[places[row.of]] = grown
    return held


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _columns(rows: Sequence[LayerSizes]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return [row.params for row in rows], [row.macs for row in rows]


def _layer_row(row: LayerSizes, most_params: int, most_macs: int) -> tuple[Child, ...]:
    (params, kept), (macs, kept_macs) = row.params, row.macs
    told = f"{row.name}: {format_count(params)} -> {format_count(kept)} parameters"
    told_macs = f"{row.name}: {format_macs(macs)} -> {format_macs(kept_macs)} MACs"
    return (
        row.name, row.shape,
        bars([(params / most_params, "dense"), (kept / most_params, "kept")], told),
        format_count(params), format_count(kept), format_fewer(params, kept, "gone"),
        bars([(macs / most_macs, "dense"), (kept_macs / most_macs, "kept2")], told_macs),
        format_macs(macs), format_macs(kept_macs),
    )  # fmt: skip


def axis_of(name: str, label: str | None = None) -> Axis:
    """The axis of a metric: shares of 1 as percentages."""
    is_share = metric(name, 0.5).endswith("%")
    return Axis(
        label or name,
        share if is_share else short,
        least=0.02 if is_share else 0.0,
        room=0.08,
        most=1.0 if is_share else None,
    )


def training(stages: Sequence[tuple[str, Sequence[Mapping[str, float]]]], lead: str) -> Markup | None:
    """Loss, metrics, sparsity and residual over the epochs of all stages, one after another; the values as a table."""
    rows: list[dict[str, float]] = []
    marks: list[Mark] = []
    for name, history in stages:
        if history:
            marks.append(Mark(len(rows) + 0.5, name))
            rows += [{**row, "epoch": float(len(rows) + i + 1)} for i, row in enumerate(history)]
    if not rows:
        return None
    names = [n for n in dict.fromkeys(key for row in rows for key in row) if n not in ("epoch", "seconds", "n", "lr")]
    told = [n for n in names if n not in (*_LOSSES, *_BEHIND, *_AIMS.values()) and _varies(n, rows)]
    ends = (0.5, len(rows) + 0.5)
    figures = [_losses(rows, marks, ends), *(_curve(name, rows, marks, ends) for name in told)]
    columns = [Column("Epoch", "name"), *(Column(_titled(name)) for name in (*names, "lr"))]
    cells = [
        [f"{row['epoch']:.0f}", *(metric(n, row[n]) if n in row else "" for n in names), f"{row.get('lr', 0):.3g}"]
        for row in rows
    ]
    return section("Training", lead, charts(*figures), folded("Values of every epoch", table(columns, cells)))


def _varies(name: str, rows: Sequence[Mapping[str, float]]) -> bool:
    """Whether a picture of it would show more than one number."""
    return name != "sparsity" or len({row[name] for row in rows if name in row}) > 1


_LOSSES = {"train_loss": ("training", "s2"), "loss": ("validation", "s3")}
_BEHIND = ("rho",)
"""Settings that are in the table of values and not worth a picture."""
_AIMS = {"residual": "planned residual"}
"""Curves that are to follow another one, which is drawn with them."""
_TITLES = {"train_loss": "Training loss", "loss": "Validation loss", "lr": "Learning rate"}


def _titled(name: str) -> str:
    return _TITLES.get(name, name[:1].upper() + name[1:].replace("_", " "))


def _epochs(ends: tuple[float, float]) -> Axis:
    return Axis("epoch", lambda v: f"{v:.0f}", ends=ends, whole=True)


def _points(name: str, rows: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    return [(row["epoch"], row[name]) for row in rows if name in row and math.isfinite(row[name])]


def _losses(rows: Sequence[Mapping[str, float]], marks: Sequence[Mark], ends: tuple[float, float]) -> Markup | None:
    """Training and validation loss in one picture: what they say lies between them."""
    lines = [
        Line(told, points, style, dots=len(points) == 1)
        for name, (told, style) in _LOSSES.items()
        if (points := _points(name, rows))
    ]
    if not lines:
        return None
    ending = ", ".join(f"{line.name} ends at {line.points[-1][1]:.4g}" for line in lines)
    return figure("Loss", "", line_chart("Loss", ending, lines, _epochs(ends), axis_of("loss"), marks))


def _curve(
    name: str, rows: Sequence[Mapping[str, float]], marks: Sequence[Mark], ends: tuple[float, float]
) -> Markup | None:
    points = _points(name, rows)
    if not points:
        return None
    is_share = name == "sparsity"
    y = replace(axis_of(name), zero=is_share)
    aim = _points(_AIMS.get(name, ""), rows)
    lines = [Line("plan", aim, "aim")] if aim else []
    lines.append(Line(name, points, named=bool(aim), dots=len(points) == 1))
    (first, start), (last, end) = points[0], points[-1]
    told = f"{name} over epochs {first:.0f} to {last:.0f}: from {y.format(start)} to {y.format(end)}"
    told += f"; the penalty is steered along a plan from {y.format(aim[0][1])} to {y.format(aim[-1][1])}" if aim else ""
    drawing = line_chart(_titled(name), told, lines, _epochs(ends), y, marks)
    aside = "; while ADMM runs, that of Z" if is_share and any("residual" in row for row in rows) else ""
    return figure(_titled(name), f"ends at {metric(name, end)}{aside}", drawing)


def primary(values: Mapping[str, Any]) -> str | None:
    """The metric that a model is judged by: its accuracy, or the first measured number that is not the loss."""
    names = [n for n, v in values.items() if n not in _NO_METRICS and is_number(v)]
    return "accuracy" if "accuracy" in names else next(iter(names), None)


def stations(record: Record) -> list[tuple[str, int, float, str]]:
    """(name, parameters, metric, the metric's name) of the model after every command that recorded both."""
    found: list[tuple[str, int, float, str]] = []
    for step in record.steps:
        before = step.metrics.get("before")
        if isinstance(before, Mapping) and record.dense_params and not found:
            found += _station("dense", record.dense_params, before)
        found += _station(step.command, step.metrics.get("params"), step.metrics)
    return found


def _station(name: str, params: Any, values: Mapping[str, Any]) -> list[tuple[str, int, float, str]]:
    measured = primary(values)
    if measured is None or type(params) is not int or params < 1:
        return []
    return [(name, params, float(values[measured]), measured)]


def trade_off(found: Sequence[tuple[str, int, float, str]], lead: str, values: Markup | None = None) -> Markup | None:
    """Metric against parameters over all stations, beside a table of `values` (default: theirs); None below two."""
    if len(found) < 2 or len({name for *_, name in found}) != 1:
        return None
    measured = found[0][3]
    points = [
        Point(name, float(params), value, "s1" if i == len(found) - 1 else "s5")
        for i, (name, params, value, _) in enumerate(found)
    ]
    x = Axis("parameters that are not zero", short, log=True)
    first, last = found[0], found[-1]
    told = (
        f"from {format_count(first[1])} parameters at {metric(measured, first[2])} "
        f"to {format_count(last[1])} at {metric(measured, last[2])}"
    )
    drawing = point_chart(f"{measured} against parameters", told, points, x, axis_of(measured))
    if values is None:
        rows = [(name, format_count(params), metric(measured, value)) for name, params, value, _ in found]
        values = table((Column("After", "name"), Column("Parameters"), Column(_titled(measured))), rows)
    shown = figure(_titled(measured), "against size", drawing)
    return section("The way to the result", lead, tag("div", shown, values, class_="split"))


def gates(found: Sequence[Mapping[str, Any]]) -> Markup | None:
    """What was required, and what was there instead where it was not met."""
    rows = [
        (str(gate["text"]), tag("span", "met" if gate["passed"] else str(gate["message"] or "not met"),
                                class_=None if gate["passed"] else "bad"))
        for gate in found
    ]  # fmt: skip
    return section("Requirements", "", table((Column("Required", "name"), Column("", "text")), rows)) if rows else None


def before_after(before: int, after: int) -> str:
    """`from 431,080, 13.0x fewer`."""
    times = format_fewer(before, after, "gone")
    return f"from {format_count(before)}, {times} fewer" if before != after else "unchanged"


def speedup_tile(latency: CutLatency | None) -> list[Tile]:
    """How many times faster, against how many times fewer MACs, and how that is known; none where nobody looked."""
    if latency is None:
        return []
    measured = latency.before_s is not None
    told = [
        f"for {format_ratio(latency.macs_ratio)} fewer MACs" if latency.macs_ratio is not None else "",
        f"{plural(latency.threads, 'thread')}, batch {latency.batch}" if measured else "estimated by the widths",
    ]
    return [Tile("Speed-up", format_ratio(latency.speedup), "; ".join(text for text in told if text))]
