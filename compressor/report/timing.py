"""The tables of `bench`; it must never measure or compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table

from compressor.report.console import group, lines, make_table
from compressor.report.profiles import profile_tables
from compressor.report.text import metric, plural, shorten
from compressor.timing.missing import why_missing
from compressor.units import format_bytes, format_ratio, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.timing import BenchReport, Environment, Timing

_NAME = 34
_LEAST_NAME = 10
_OPTIONAL_COLUMN = 10
"""What a column for accuracy or memory takes from the names, so that the table stays within 100 columns."""


def bench_table(
    report: BenchReport, requirements: Mapping[str, bool] | None = None, *, every_row: bool = False
) -> RenderableType:
    """A table and a summary per configuration, profiles, requirements, warnings, and where it was measured."""
    parts = [part for timings in configurations(report.timings) for part in _configuration(timings)]
    return group(
        lines(*_summary(report.timings)),
        *parts,
        *profile_tables(report.profiles, every_row=every_row),
        lines(*(f"{'met' if met else 'NOT MET'}: {text}" for text, met in (requirements or {}).items())),
        lines(*(f"warning: {warning.message}; {warning.hint}" for warning in report.warnings)),
        lines(_environment(report.environment)),
    )


def configurations(timings: Sequence[Timing]) -> Iterator[list[Timing]]:
    """Timings that were taken in the same way, and so can be compared."""
    for _, rows in groupby(timings, key=lambda timing: (timing.provider, timing.threads, timing.batch)):
        yield list(rows)


def configuration_name(timings: Sequence[Timing]) -> str:
    """What the rows of one table have in common."""
    first = timings[0]
    return f"{first.provider}, {plural(first.threads, 'thread')}, batch {first.batch}"


def _configuration(timings: list[Timing]) -> Iterator[RenderableType | None]:
    yield lines(configuration_name(timings), style="bold")
    yield _latencies(timings)


def _latencies(timings: list[Timing]) -> Table:
    has_accuracy = any(timing.accuracy is not None for timing in timings)
    has_memory = any(timing.peak_memory_bytes is not None for timing in timings)
    has_gzip = any(timing.subject.gzip_bytes is not None for timing in timings)
    has_copies = any(timing.with_copies_s is not None for timing in timings)
    n_optional = has_accuracy + has_memory + has_gzip + has_copies
    width = max(_LEAST_NAME, _NAME - _OPTIONAL_COLUMN * n_optional)
    optional = [">+ copies"] * has_copies + [">gzip"] * has_gzip
    optional += [">Accuracy"] * has_accuracy + [">Memory"] * has_memory
    table = make_table("Model", "Via", ">Median", ">± MAD", ">p90", ">p99", ">Samples/s", ">Size", *optional)
    for timing in timings:
        copied, squeezed, peak = timing.with_copies_s, timing.subject.gzip_bytes, timing.peak_memory_bytes
        cells = [format_seconds(copied) if copied is not None else ""] * has_copies
        cells += [format_bytes(squeezed) if squeezed is not None else ""] * has_gzip
        cells += [metric("accuracy", timing.accuracy) if timing.accuracy is not None else ""] * has_accuracy
        cells += [format_bytes(peak) if peak is not None else ""] * has_memory
        table.add_row(
            shorten(timing.subject.name, width),
            timing.subject.kind.removeprefix("torch-"),
            format_seconds(timing.median_s),
            format_seconds(timing.mad_s),
            format_seconds(timing.p90_s),
            format_seconds(timing.p99_s),
            f"{timing.throughput_per_s:,.0f}",
            format_bytes(timing.subject.size_bytes),
            *cells,
        )
    return table


def _summary(timings: Sequence[Timing]) -> Iterator[str]:
    """What the bench is run for, first: every model against the reference, in every configuration."""
    found = list(configurations(timings))
    for rows in found:
        where = f"{configuration_name(rows)}: " if len(found) > 1 else ""
        for timing in rows[1:]:
            yield where + _compared(timing, rows[0])
            if rest := against_macs(timing, rows[0]):
                yield f"  {rest}"


def comparisons(rows: Sequence[Timing]) -> list[str]:
    """Every model of one configuration against the first, with what went for it and where the rest is."""
    told = [(_compared(timing, rows[0]), against_macs(timing, rows[0])) for timing in rows[1:]]
    return [", ".join(filter(None, pair)) for pair in told]


def against_macs(timing: Timing, first: Timing) -> str:
    """`for 3.45x fewer MACs; the rest: …`; empty where MACs are not known or did not get fewer."""
    before, after = first.subject.macs, timing.subject.macs
    if not before or not after or before <= after:
        return ""
    reasons = why_missing(timing.speedup, before / after, after_s=timing.median_s, batch=timing.batch)
    rest = f"; the rest: {'; '.join(reasons)}" if reasons else ""
    return f"for {format_ratio(before / after)} fewer MACs{rest}"


def _compared(timing: Timing, first: Timing) -> str:
    name, reference = shorten(timing.subject.name, 36), shorten(first.subject.name, 36)
    interval = f"(95 %: {format_ratio(timing.speedup_low)} to {format_ratio(timing.speedup_high)})"
    if timing.verdict == "no difference":
        return f"{name}: no difference to {reference} {interval}"
    return f"{name}: {format_ratio(timing.speedup)} the speed of {reference} {interval}, {timing.verdict}"


def _environment(where: Environment) -> str:
    gpu = f", {where.gpu}" if where.gpu else ""
    return (
        f"{where.cpu}, {plural(where.n_cores, 'core')}{gpu}; torch {where.torch}, "
        f"onnxruntime {where.onnxruntime}, Python {where.python}, {where.system}"
    )
