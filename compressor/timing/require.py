"""Gates such as `speedup>=3` over a bench's numbers: checked, failed; it must never measure anything.

A gate looks at every model but the first, which is the reference, or at the only one there is. `speedup` and
`ratio` are relative to the first model and need two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.asking.gates import METRICS, Gate, parse_gate
from compressor.errors import GateError, UsageError
from compressor.timing.measured import BenchReport, Timing


@dataclass(frozen=True)
class GateResult:
    """A gate, one measured value, and whether it passed; `shown` is the value with its unit."""

    gate: Gate
    timing: Timing
    value: float
    shown: str
    passed: bool


def require(report: BenchReport, texts: Sequence[str]) -> tuple[GateResult, ...]:
    """Every gate on every timing it looks at, all passed.

    Raises:  GateError naming what failed with the measured value; UsageError for a gate that is malformed, or
             about something that was not measured.
    """
    results = looked_at(report, texts)
    failed = [result for result in results if not result.passed]
    if failed:
        shown = "; ".join(_describe(result, report) for result in failed[:4])
        more = f"; and {len(failed) - 4} more" if len(failed) > 4 else ""
        raise GateError(f"{len(failed)} of {len(results)} requirements failed: {shown}{more}")
    return results


def looked_at(report: BenchReport, texts: Sequence[str]) -> tuple[GateResult, ...]:
    """Every gate on every timing it looks at, passed or not.

    Raises:  UsageError as `require`.
    """
    return tuple(result for text in texts for result in _check(parse_gate(text, METRICS["bench"]), report))


def _check(gate: Gate, report: BenchReport) -> list[GateResult]:
    metric = METRICS["bench"][gate.metric]
    n_subjects = len(dict.fromkeys(timing.subject.name for timing in report.timings))
    if metric.relative and n_subjects < 2:
        raise UsageError(f"--require {gate.text}: compares with the first model; give two models or more")
    results: list[GateResult] = []
    for i, timing in enumerate(report.timings):
        if n_subjects > 1 and i % n_subjects == 0:
            continue
        value = _value(gate, timing, report.timings[i - i % n_subjects])
        passed = gate.passed(value)
        results.append(GateResult(gate, timing, value, metric.show(value), passed))
    return results


def _value(gate: Gate, timing: Timing, reference: Timing) -> float:
    value: float | None
    match gate.metric:
        case "speedup":
            value = timing.speedup
        case "ratio":
            value = reference.subject.n_params / max(timing.subject.n_params, 1)
        case "latency":
            value = timing.median_s
        case "p99":
            value = timing.p99_s
        case "throughput":
            value = timing.throughput_per_s
        case "size":
            value = float(timing.subject.size_bytes)
        case "memory":
            value = timing.peak_memory_bytes
        case "gzip":
            value = timing.subject.gzip_bytes
        case _:
            value = timing.accuracy
    if value is None:
        raise UsageError(f"--require {gate.text}: {gate.metric} of {timing.subject.name} was not measured")
    return float(value)


def _describe(result: GateResult, report: BenchReport) -> str:
    timing = result.timing
    where = timing.subject.name
    if len({(t.threads, t.batch) for t in report.timings}) > 1:
        where += f" (threads {timing.threads}, batch {timing.batch})"
    return f"{result.gate.text}: {where} has {result.shown}"
