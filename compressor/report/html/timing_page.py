"""The page of `bench`; it must never measure or compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from compressor.report.html.charts import Axis, Point, point_chart
from compressor.report.html.history import provenance
from compressor.report.html.latencies import times_alone, times_beside
from compressor.report.html.markup import Child, Markup, tag
from compressor.report.html.page import About, Column, Tile, charts, figure, note, page, section, stack, table, warnings
from compressor.report.html.parts import axis_of
from compressor.report.html.timing_charts import latency_chart, plain_name, speedup_chart, style_of
from compressor.report.profiles import row_times
from compressor.report.text import metric, plural
from compressor.report.timing import against_macs, comparisons, configuration_name, configurations
from compressor.timing.require import looked_at
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
        warnings([f"{warning.message}; {warning.hint}." for warning in report.warnings]),
        _requirements(report, requirements or {}),
        _summary(report.timings),
        [_configuration(timings) for timings in configurations(report.timings)],
        list(_profiles(report.profiles)) or _hint(report),
        provenance(about),
    ]
    names = [plain_name(timing.subject.name) for timing in next(iter(configurations(report.timings)), [])]
    title = f"{names[0]} against {', '.join(names[1:])}" if len(names) > 1 else "".join(names)
    return page(about, title, lead, _tiles(report.timings), sections)


def _tiles(timings: Sequence[Timing]) -> list[Tile]:
    """The last model against the first, in the first configuration."""
    first_group = next(configurations(timings), [])
    if not first_group:
        return []
    first, last = first_group[0], first_group[-1]
    compared = len(first_group) > 1
    what = f"{plain_name(last.subject.name)}, {plural(last.threads, 'thread')}, batch {last.batch}"
    latency, size = f"from {format_seconds(first.median_s)}", f"from {format_bytes(first.subject.size_bytes)}"
    name = plain_name(last.subject.name)
    tiles = [
        Tile("Latency", format_seconds(last.median_s), f"{what}; {latency if compared else 'median'}"),
        Tile("Size", format_bytes(last.subject.size_bytes), f"{name}; {size if compared else 'of the file'}"),
    ]  # fmt: skip
    if compared:
        interval = f"95 %: {format_ratio(last.speedup_low)} to {format_ratio(last.speedup_high)}"
        against = against_macs(last, first).partition(";")[0]
        tiles.insert(
            0, Tile("Speed-up", format_ratio(last.speedup), "; ".join(filter(None, (what, interval, against))))
        )
    if last.accuracy is not None:
        aside = f"; from {metric('accuracy', first.accuracy)}" if compared and first.accuracy is not None else ""
        tiles.append(Tile("Accuracy", metric("accuracy", last.accuracy), name + aside))
    return tiles


def _requirements(report: BenchReport, requirements: Mapping[str, bool]) -> Markup | None:
    """Every requirement with each model and configuration that it was looked at on, and the value there."""
    if not requirements:
        return None
    rows = [
        (
            found.gate.text, tag("span", "met" if found.passed else "not met", class_=None if found.passed else "bad"),
            metric("accuracy", found.value) if found.gate.metric == "accuracy" else found.shown,
            f"{plain_name(found.timing.subject.name)}, {plural(found.timing.threads, 'thread')}, "
            f"batch {found.timing.batch}",
        )
        for found in looked_at(report, tuple(requirements))
    ]  # fmt: skip
    columns = (Column("Required", "name"), Column("", "left"), Column("Value"), Column("Of", "text"))
    return section("Requirements", "", table(columns, rows))


def _summary(timings: Sequence[Timing]) -> Markup | None:
    """Speed-ups over threads and batches, a row for each model and number of threads, where there are several."""
    found = list(configurations(timings))
    if len(found) < 2 or len(found[0]) < 2:
        return None
    batches = sorted({rows[0].batch for rows in found})
    providers = list(dict.fromkeys(rows[0].provider for rows in found))
    by_place = {(t.provider, t.threads, t.batch, i): t for rows in found for i, t in enumerate(rows) if i}
    columns = [
        Column("Model", "name"), *[Column("Provider", "left")] * (len(providers) > 1), Column("Threads"),
        *(Column(f"batch {batch}") for batch in batches),
    ]  # fmt: skip
    rows: list[list[Child]] = []
    for provider, threads, i in dict.fromkeys((p, n, i) for p, n, _, i in by_place):
        cells = [by_place.get((provider, threads, batch, i)) for batch in batches]
        name = next(t.subject.name for t in cells if t)
        rows.append([name, *[provider] * (len(providers) > 1), str(threads), *map(_times, cells)])
    lead = f"How many times as fast as {plain_name(found[0][0].subject.name)}; red where slower."
    return section("Speed-up over threads and batches", lead, table(columns, rows))


def _times(timing: Timing | None) -> Child:
    if timing is None:
        return ""
    bounds = f"95 %: {format_ratio(timing.speedup_low)} to {format_ratio(timing.speedup_high)}"
    style = "bad" if timing.verdict == "slower" else None
    return tag("span", format_ratio(timing.speedup), title=bounds, class_=style)


def _configuration(timings: list[Timing]) -> Markup:
    title = configuration_name(timings)
    lead = "The models were measured in turns, so that whatever else the machine did met all of them."
    told = [note(f"{text}.") for text in comparisons(timings)]
    flat, against = (_latency(timings), _speedup(timings)), list(_against(timings))
    return section(title, lead, told, charts(*([stack(*flat), *against] if against else flat)), _values(timings))


def _latency(timings: list[Timing]) -> Markup:
    return figure("Latency", "of one inference", latency_chart(timings))


def _speedup(timings: list[Timing]) -> Markup | None:
    if len(timings) < 2:
        return None
    against = plain_name(timings[0].subject.name)
    return figure("Speed-up", f"against {against}, 95 % interval", speedup_chart(timings))


def _against(timings: list[Timing]) -> Iterator[Markup]:
    """Accuracy against latency, the sizes as areas, and against size, of the models whose accuracy is known."""
    known = [(i, t) for i, t in enumerate(timings) if t.accuracy is not None]
    if len(known) < 2:
        return
    y = axis_of("accuracy")
    latency, size = Axis("latency", format_seconds, log=True), Axis("size of the file", _bytes, log=True, binary=True)
    radii = _radii([t for _, t in known])
    by_latency = [
        Point(plain_name(t.subject.name), t.median_s, t.accuracy or 0.0, style_of(i, len(timings)),
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
        yield figure("Accuracy", caption, point_chart(f"Accuracy {unit}", said, points, x, y, joined=False))


def _radii(timings: Sequence[Timing]) -> list[float]:
    """Of marks whose areas are as the sizes of the files, the largest as large as can be told from its name."""
    most = max(timing.subject.size_bytes for timing in timings)
    return [max(_LARGEST * math.sqrt(t.subject.size_bytes / most), _SMALLEST) if most else _SMALLEST for t in timings]


def _profiles(profiles: Sequence[Profile]) -> Iterator[Markup]:
    """Layer by layer, one model or each beside the first, for every configuration."""
    for (provider, threads, batch), same in groupby(profiles, key=lambda p: (p.provider, p.threads, p.batch)):
        first, *others = same
        times, name = row_times(first), plain_name(first.subject.name)
        tables = [times_beside(times, row_times(p), (name, plain_name(p.subject.name))) for p in others]
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
    has_memory, compares = any(t.peak_memory_bytes is not None for t in timings), len(timings) > 1
    columns = [
        Column("Model", "name"), Column("Via", "left", less=True), Column("Median"),
        *[Column("Speed-up")] * compares, Column("± MAD", less=True),
        Column("p99", less=True), Column("Samples/s", less=True), Column("Size", less=True),
        Column("Parameters", less=True), *[Column("Accuracy")] * has_accuracy,
        *[Column("Memory", less=True)] * has_memory, Column("Runs", less=True),
    ]  # fmt: skip
    rows: list[list[Child]] = []
    for t in timings:
        peak = format_bytes(t.peak_memory_bytes) if t.peak_memory_bytes is not None else ""
        rows.append([
            t.subject.name, t.subject.kind, format_seconds(t.median_s),
            *[format_ratio(t.speedup) if t is not timings[0] else ""] * compares, format_seconds(t.mad_s),
            format_seconds(t.p99_s), f"{t.throughput_per_s:,.0f}",
            format_bytes(t.subject.size_bytes), format_count(t.subject.n_params),
            *[metric("accuracy", t.accuracy) if t.accuracy is not None else ""] * has_accuracy,
            *[peak] * has_memory, f"{t.n_runs} × {t.n_inner}",
        ])  # fmt: skip
    return table(columns, rows)
