"""The picture of `bench --plot`: latencies as bars in one SVG file; it must never measure or compare models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from compressor.report.html.markup import Markup, tag
from compressor.report.text import plural, shorten
from compressor.units import format_ratio, format_seconds

if TYPE_CHECKING:
    from compressor.timing import BenchReport, Timing

_WIDTH, _MARGIN = 760.0, 20.0
_BARS, _END, _TIME = 220.0, 560.0, 632.0
_ROW, _HEAD, _GAP = 30.0, 34.0, 14.0
_NAME = 26
_STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
text { fill: #1a1d21; font-variant-numeric: tabular-nums; }
.soft { fill: #5a636e; font-size: 12px; } .head { font-weight: 600; } .time { text-anchor: end; }
.page { fill: #ffffff; } .first { fill: #c4c9cf; } .other { fill: #0b6e63; }
.tail { stroke: #5a636e; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e9eaec; } .soft { fill: #a2abb6; } .page { fill: #121417; }
  .first { fill: #4d5661; } .other { fill: #4fd1bd; } .tail { stroke: #a2abb6; }
}
"""


def bench_svg(report: BenchReport) -> str:
    """One SVG document: a bar per model, its median from 0, with a line on to the 90th percentile.

    Bars of one configuration share a scale; those of different ones do not.
    """
    parts: list[Markup] = []
    y = _MARGIN
    for timings in _configurations(report.timings):
        parts += _configuration(timings, y)
        y += _HEAD + _ROW * len(timings) + _GAP
    where = report.environment
    machine = f"{where.gpu or where.cpu}, {plural(where.n_cores, 'core')}"
    told = f"Bars: median; lines: to the 90th percentile. {machine}; onnxruntime {where.onnxruntime}"
    parts.append(_text(_MARGIN, y + 10, told, "soft"))
    height = y + 10 + _MARGIN
    names = ", ".join(dict.fromkeys(timing.subject.name for timing in report.timings))
    return tag(
        "svg",
        tag("title", f"Latency of {names}"),
        tag("desc", "; ".join(_told(timing) for timing in report.timings)),
        tag("style", Markup(_STYLE)),
        tag("rect", class_="page", width=_WIDTH, height=height),
        parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH:g} {height:g}",
        width=_WIDTH,
        height=height,
        role="img",
    )


def _configurations(timings: Sequence[Timing]) -> Iterator[list[Timing]]:
    for _, rows in groupby(timings, key=lambda timing: (timing.provider, timing.threads, timing.batch)):
        yield list(rows)


def _configuration(timings: Sequence[Timing], top: float) -> Iterator[Markup]:
    first = timings[0]
    title = f"{first.provider}, {plural(first.threads, 'thread')}, batch {first.batch}"
    yield _text(_MARGIN, top + 14, title, "head")
    # The slowest median fills the width but for a tail: one noisy model must not squeeze all the bars.
    longest = max(timing.median_s for timing in timings) * 1.15 or 1.0
    for i, timing in enumerate(timings):
        middle = top + _HEAD + _ROW * i
        end, tail = (_BARS + (_END - _BARS) * min(s / longest, 1.0) for s in (timing.median_s, timing.p90_s))
        yield _text(_MARGIN, middle + 4, shorten(timing.subject.name, _NAME))
        kind = "other" if i else "first"
        yield tag("rect", class_=kind, x=_BARS, y=middle - 8, width=max(end - _BARS, 1.0), height=16.0, rx=2.0)
        yield tag("line", class_="tail", x1=end, x2=tail, y1=middle, y2=middle)
        yield _text(_TIME, middle + 4, format_seconds(timing.median_s), "time")
        yield _text(_TIME + 14, middle + 4, _against(timing), "head")


def _against(timing: Timing) -> str:
    """How much faster than the first; its own row says nothing."""
    if timing.verdict == "reference":
        return ""
    return timing.verdict if timing.verdict == "no difference" else format_ratio(timing.speedup)


def _told(timing: Timing) -> str:
    where = f"{timing.subject.name}, {plural(timing.threads, 'thread')}, batch {timing.batch}"
    return f"{where}: {format_seconds(timing.median_s)}, 90 % below {format_seconds(timing.p90_s)}"


def _text(x: float, y: float, text: str, kind: str | None = None) -> Markup:
    return tag("text", text, x=x, y=y, class_=kind)
