"""The picture of `bench --plot`: the charts of the report in one SVG file; it must never measure or compare models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.report.html.charts import WIDTH, interval_height
from compressor.report.html.markup import Markup, tag
from compressor.report.html.style import DRAWING_STYLE
from compressor.report.html.timing_charts import latency_chart, speedup_chart
from compressor.report.text import plural
from compressor.report.timing import configuration_name, configurations
from compressor.units import format_seconds

if TYPE_CHECKING:
    from compressor.timing import BenchReport, Timing

_MARGIN, _HEAD, _GAP = 20.0, 30.0, 18.0


def bench_svg(report: BenchReport) -> str:
    """One SVG document: for every configuration the latencies, and beside them the speed-ups.

    Charts of one configuration share a scale; those of different ones do not.
    """
    parts: list[Markup] = []
    y, width = _MARGIN, 2 * WIDTH + 3 * _MARGIN
    for timings in configurations(report.timings):
        parts.append(tag("text", configuration_name(timings), x=_MARGIN, y=y + 12, class_="head"))
        y += _HEAD
        parts.append(latency_chart(timings, (_MARGIN, y)))
        if len(timings) > 1:
            parts.append(speedup_chart(timings, (WIDTH + 2 * _MARGIN, y)))
        y += interval_height(len(timings)) + _GAP
    where = report.environment
    machine = f"{where.gpu or where.cpu}, {plural(where.n_cores, 'core')}; onnxruntime {where.onnxruntime}"
    told = f"Latency: median ± MAD, line to the 90th percentile; speed-up with its 95 % interval. {machine}"
    parts.append(tag("text", told, x=_MARGIN, y=y + 10, class_="axis"))
    height = y + 10 + _MARGIN
    names = ", ".join(dict.fromkeys(timing.subject.name for timing in report.timings))
    return tag(
        "svg",
        tag("title", f"Latency of {names}"),
        tag("desc", "; ".join(map(_told, report.timings))),
        tag("style", Markup(DRAWING_STYLE)),
        tag("rect", class_="page", width=width, height=height),
        parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
    )


def _told(timing: Timing) -> str:
    where = f"{timing.subject.name}, {configuration_name([timing])}"
    return f"{where}: {format_seconds(timing.median_s)}, 90 % below {format_seconds(timing.p90_s)}"
