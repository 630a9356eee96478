"""The page of `bench`; it must never measure or compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import PurePath
from typing import TYPE_CHECKING

from compressor.report.html.charts import Axis, Interval, Point, interval_chart, point_chart
from compressor.report.html.latencies import times_alone, times_beside
from compressor.report.html.markup import Child, Markup, tag
from compressor.report.html.page import About, Column, Tile, charts, figure, note, page, section, stack, table
from compressor.report.html.parts import axis_of, provenance
from compressor.report.profiles import row_times
from compressor.report.text import metric, plural
from compressor.units import format_bytes, format_count, format_ratio, format_seconds

if TYPE_CHECKING:
    from compressor.timing import BenchReport, Profile, Timing

_LARGEST, _SMALLEST = 13.0, 2.5
"""Radii of marks whose area is a size."""


def bench_page(report: BenchReport, about: About, requirements: Mapping[str, bool] | None = None) -> str:
    """Latency, speed-up with its interval, and what it costs in accuracy and size, for every configuration."""
    where = report.environment
    lead = (
        f"{where.cpu}, {plural(where.n_cores, 'core')}{f', {where.gpu}' if where.gpu else ''}; "
        f"torch {where.torch}, onnxruntime {where.onnxruntime}, Python {where.python}, {where.system}."
    )
    sections: list[Child] = [
        _requirements(requirements or {}),
        [_configuration(timings) for timings in _configurations(report.timings)],
        list(_profiles(report.profiles)) or _hint(report),
        [note(f"Warning: {warning.message}; {warning.hint}.") for warning in report.warnings],
        provenance(about),
    ]
    names = [_plain(timing.subject.name) for timing in next(iter(_configurations(report.timings)), [])]
    title = f"{names[0]} against {', '.join(names[1:])}" if len(names) > 1 else "".join(names)
    return page(about, title, lead, _tiles(report.timings), sections)


def _configurations(timings: Sequence[Timing]) -> Iterator[list[Timing]]:
    for _, rows in groupby(timings, key=lambda timing: (timing.provider, timing.threads, timing.batch)):
        yield list(rows)


def _plain(name: str) -> str:
    return PurePath(name).name


def _tiles(timings: Sequence[Timing]) -> list[Tile]:
    """The last model against the first, in the first configuration."""
    first_group = next(_configurations(timings), [])
    if not first_group:
        return []
    first, last = first_group[0], first_group[-1]
    compared = len(first_group) > 1
    latency, size = f"from {format_seconds(first.median_s)}", f"from {format_bytes(first.subject.size_bytes)}"
    tiles = [
        Tile("Latency", format_seconds(last.median_s), latency if compared else "median"),
        Tile("Size", format_bytes(last.subject.size_bytes), size if compared else "of the file"),
    ]  # fmt: skip
    if compared:
        interval = f"95 %: {format_ratio(last.speedup_low)} to {format_ratio(last.speedup_high)}"
        tiles.insert(0, Tile("Speed-up", format_ratio(last.speedup), interval))
    if last.accuracy is not None:
        aside = f"from {metric('accuracy', first.accuracy)}" if compared and first.accuracy is not None else ""
        tiles.append(Tile("Accuracy", metric("accuracy", last.accuracy), aside))
    return tiles


def _requirements(requirements: Mapping[str, bool]) -> Markup | None:
    if not requirements:
        return None
    rows = [
        (text, tag("span", "met" if met else "not met", class_=None if met else "bad"))
        for text, met in requirements.items()
    ]
    return section("Requirements", "", table((Column("Required", "name"), Column("", "text")), rows))


def _configuration(timings: list[Timing]) -> Markup:
    first = timings[0]
    title = f"{first.provider}, {plural(first.threads, 'thread')}, batch {first.batch}"
    lead = "The models were measured in turns, so that whatever else the machine did met all of them."
    flat, against = (_latency(timings), _speedup(timings)), list(_against(timings))
    return section(title, lead, charts(*([stack(*flat), *against] if against else flat)), _values(timings))


def _style(i: int, n: int) -> str:
    return "s5" if i == 0 and n > 1 else ("s1", "s3", "s2", "s4")[max(i - 1, 0) % 4]


def _latency(timings: list[Timing]) -> Markup:
    rows = [
        Interval(
            _plain(t.subject.name), t.median_s, max(t.median_s - t.mad_s, t.min_s), t.median_s + t.mad_s,
            format_seconds(t.median_s), _style(i, len(timings)), t.p90_s,
        )
        for i, t in enumerate(timings)
    ]  # fmt: skip
    told = "; ".join(f"{row.name} {row.told}" for row in rows)
    x = Axis("one inference", lambda v: format_seconds(v) if v > 0 else "0", zero=True)
    return figure("Latency", "median ± MAD, line to p90", interval_chart("Latency", told, rows, x))


def _speedup(timings: list[Timing]) -> Markup | None:
    if len(timings) < 2:
        return None
    rows = [
        Interval(_plain(t.subject.name), t.speedup, t.speedup_low, t.speedup_high, format_ratio(t.speedup),
                 _style(i, len(timings)))
        for i, t in enumerate(timings) if i > 0
    ]  # fmt: skip
    told = "; ".join(f"{row.name} {row.told}, 95 % from {row.low:.2f}x to {row.high:.2f}x" for row in rows)
    drawing = interval_chart("Speed-up", told, rows, Axis("times as fast", lambda v: f"{v:g}x", zero=True), 1.0)
    return figure("Speed-up", f"against {_plain(timings[0].subject.name)}, 95 % interval", drawing)


def _against(timings: list[Timing]) -> Iterator[Markup]:
    """Accuracy against latency, the sizes as areas, and against size, of the models whose accuracy is known."""
    known = [(i, t) for i, t in enumerate(timings) if t.accuracy is not None]
    if len(known) < 2:
        return
    y = axis_of("accuracy")
    latency, size = Axis("latency", format_seconds, log=True), Axis("size of the file", _bytes, log=True, binary=True)
    radii = _radii([t for _, t in known])
    by_latency = [
        Point(_plain(t.subject.name), t.median_s, t.accuracy or 0.0, _style(i, len(timings)),
              _bytes(t.subject.size_bytes), radius)
        for (i, t), radius in zip(known, radii, strict=True)
    ]  # fmt: skip
    by_size = [
        replace(p, x=float(t.subject.size_bytes), told="", radius=4.5)
        for p, (_, t) in zip(by_latency, known, strict=True)
    ]
    for unit, aside, points, x in (
        ("against latency", "area: file size", by_latency, latency),
        ("against size", "", by_size, size),
    ):
        said = "; ".join(
            ", ".join(filter(None, (f"{p.name}: {y.format(p.y)} at {x.format(p.x)}", p.told))) for p in points
        )
        caption = f"{unit}; {aside}" if aside else unit
        yield figure("Accuracy", caption, point_chart(f"Accuracy {unit}", said, points, x, y))


def _radii(timings: Sequence[Timing]) -> list[float]:
    """Of marks whose areas are as the sizes of the files, the largest as large as can be told from its name."""
    most = max(timing.subject.size_bytes for timing in timings)
    return [max(_LARGEST * math.sqrt(t.subject.size_bytes / most), _SMALLEST) if most else _SMALLEST for t in timings]


def _profiles(profiles: Sequence[Profile]) -> Iterator[Markup]:
    """Layer by layer, one model or each beside the first, for every configuration."""
    for (provider, threads, batch), same in groupby(profiles, key=lambda p: (p.provider, p.threads, p.batch)):
        first, *others = same
        times, name = row_times(first), _plain(first.subject.name)
        tables = [times_beside(times, row_times(p), (name, _plain(p.subject.name))) for p in others]
        yield section(
            f"Where the time goes: {provider}, {plural(threads, 'thread')}, batch {batch}",
            "By layer, from the runtime's own profiler, which slows everything down a little: the shares count. In "
            "brackets operators that have no weights.",
            tables or times_alone(times),
        )


def _hint(report: BenchReport) -> Markup | None:
    """How to see where the time goes, where that can be seen and was not asked for."""
    asked = any(warning.kind.name == "PROFILE_UNKNOWN" for warning in report.warnings)
    can = any(timing.subject.kind == "onnx" and timing.provider == "cpu" for timing in report.timings)
    return note("Where the time goes, layer by layer: compress bench --profile.") if can and not asked else None


def _bytes(value: float) -> str:
    return format_bytes(round(value))


def _values(timings: list[Timing]) -> Markup:
    has_accuracy = any(t.accuracy is not None for t in timings)
    has_memory = any(t.peak_memory_bytes is not None for t in timings)
    columns = [
        Column("Model", "name"), Column("Via", "left", less=True), Column("Median"), Column("± MAD", less=True),
        Column("p90", less=True), Column("p99"), Column("Samples/s", less=True), Column("Size"),
        Column("Parameters", less=True), *[Column("Accuracy")] * has_accuracy,
        *[Column("Memory", less=True)] * has_memory, Column("Runs", less=True),
    ]  # fmt: skip
    rows: list[list[Child]] = []
    for t in timings:
        peak = format_bytes(t.peak_memory_bytes) if t.peak_memory_bytes is not None else ""
        rows.append([
            t.subject.name, t.subject.kind, format_seconds(t.median_s), format_seconds(t.mad_s),
            format_seconds(t.p90_s), format_seconds(t.p99_s), f"{t.throughput_per_s:,.0f}",
            format_bytes(t.subject.size_bytes), format_count(t.subject.n_params),
            *[metric("accuracy", t.accuracy) if t.accuracy is not None else ""] * has_accuracy,
            *[peak] * has_memory, f"{t.n_runs} × {t.n_inner}",
        ])  # fmt: skip
    return table(columns, rows)
