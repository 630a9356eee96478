"""Latencies and speed-ups of one configuration as drawings; it must never hold what stands around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from compressor.report.html.charts import At, Axis, Interval, interval_chart
from compressor.report.html.markup import Markup
from compressor.units import format_ratio, format_seconds

if TYPE_CHECKING:
    from compressor.timing import Timing


def latency_chart(timings: Sequence[Timing], at: At | None = None) -> Markup:
    """Medians with their deviation, and a line on to the 90th percentile."""
    rows = [
        Interval(
            plain_name(t.subject.name), t.median_s, max(t.median_s - t.mad_s, t.min_s), t.median_s + t.mad_s,
            format_seconds(t.median_s), style_of(i, len(timings)), t.p90_s,
        )
        for i, t in enumerate(timings)
    ]  # fmt: skip
    told = "; ".join(f"{row.name} {row.told}, p90 {format_seconds(row.tail or row.high)}" for row in rows)
    x = Axis("one inference", lambda v: format_seconds(v) if v > 0 else "0", zero=True)
    legend = (("dot", "median"), ("thick", "± MAD"), ("thin", "to p90"))
    return interval_chart("Latency", told, rows, x, legend=legend, at=at)


def speedup_chart(timings: Sequence[Timing], at: At | None = None) -> Markup:
    """How many times as fast as the first every other one is, with its interval."""
    rows = [
        Interval(plain_name(t.subject.name), t.speedup, t.speedup_low, t.speedup_high, format_ratio(t.speedup),
                 style_of(i, len(timings)))
        for i, t in enumerate(timings) if i > 0
    ]  # fmt: skip
    between = [f"95 % from {format_ratio(row.low)} to {format_ratio(row.high)}" for row in rows]
    told = "; ".join(f"{row.name} {row.told}, {where}" for row, where in zip(rows, between, strict=True))
    x = Axis("times as fast", lambda v: f"{v:g}x", zero=True)
    legend = (("dot", "speed-up"), ("thick", "95 %"), ("reference", "equal"))
    return interval_chart("Speed-up", told, rows, x, 1.0, legend=legend, at=at)


def plain_name(name: str) -> str:
    """The file's name without its folders."""
    return PurePath(name).name


def style_of(i: int, n: int) -> str:
    """Grey for what the others are compared with."""
    return "s5" if i == 0 and n > 1 else ("s1", "s3", "s2", "s4")[max(i - 1, 0) % 4]
