"""Gates such as `speedup>=3` over a bench's numbers: parsed, checked, failed; it must never measure anything.

A gate looks at every model but the first, which is the reference, or at the only one there is. `speedup` and
`ratio` are relative to the first model and need two.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compressor.errors import GateError, UsageError
from compressor.timing.result import BenchReport, Timing
from compressor.units import format_bytes, format_ratio, format_seconds

_TEXT = re.compile(
    r"^\s*(?P<name>[a-z0-9_-]+)\s*(?P<op>>=|<=|>|<)\s*(?P<number>\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*(?P<unit>[^\s\d.]\S*)?\s*$",
    re.I,
)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_SIZE = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_FACTOR = {"": 1.0, "x": 1.0}


@dataclass(frozen=True)
class _Metric:
    """What a gate's name stands for."""

    units: dict[str, float]
    show: Callable[[float], str]
    relative: bool = False


_METRICS = {
    "speedup": _Metric(_FACTOR, format_ratio, relative=True),
    "ratio": _Metric(_FACTOR, format_ratio, relative=True),
    "latency": _Metric(_TIME, format_seconds),
    "p99": _Metric(_TIME, format_seconds),
    "throughput": _Metric({"": 1.0, "/s": 1.0}, lambda value: f"{value:.4g}/s"),
    "accuracy": _Metric({"": 1.0, "%": 0.01}, lambda value: f"{value:.4f}"),
    "size": _Metric(_SIZE, lambda value: format_bytes(int(value))),
    "memory": _Metric(_SIZE, lambda value: format_bytes(int(value))),
}


@dataclass(frozen=True)
class Gate:
    """One requirement; `limit` in seconds, bytes, a factor or a share."""

    text: str
    metric: str
    comparison: str
    limit: float


@dataclass(frozen=True)
class GateResult:
    """A gate, one measured value, and whether it passed; `shown` is the value with its unit."""

    gate: Gate
    timing: Timing
    value: float
    shown: str
    passed: bool


def parse_requirement(text: str) -> Gate:
    """A gate from `speedup>=3`, `latency<=2ms`, `accuracy>=0.98`, `size<=1MiB` or `ratio>=10`.

    Raises:  UsageError naming the nearest metric or the units that are known.
    """
    match = _TEXT.match(text)
    if match is None:
        raise UsageError(f"--require {text}: not a requirement; write it as speedup>=3, latency<=2ms or size<=1MiB")
    name = match["name"].lower()
    if name not in _METRICS:
        near = difflib.get_close_matches(name, _METRICS, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(_METRICS)}"
        raise UsageError(f"--require {text}: {name} is not measured; {advice}")
    units = _METRICS[name].units
    scale = units.get((match["unit"] or "").lower())
    if scale is None:
        known = ", ".join(unit or "none" for unit in units)
        got = f"unknown unit {match['unit']}" if match["unit"] else "a unit is missing"
        raise UsageError(f"--require {text}: {got}; {name} takes: {known}")
    return Gate(text.strip(), name, match["op"], float(match["number"]) * scale)


def require(report: BenchReport, texts: Sequence[str]) -> tuple[GateResult, ...]:
    """Every gate on every timing it looks at, all passed.

    Raises:  GateError naming what failed with the measured value; UsageError for a gate that is malformed, or
             about something that was not measured.
    """
    results = tuple(result for text in texts for result in _check(parse_requirement(text), report))
    failed = [result for result in results if not result.passed]
    if failed:
        shown = "; ".join(_describe(result, report) for result in failed[:4])
        more = f"; and {len(failed) - 4} more" if len(failed) > 4 else ""
        raise GateError(f"{len(failed)} of {len(results)} requirements failed: {shown}{more}")
    return results


def _check(gate: Gate, report: BenchReport) -> list[GateResult]:
    metric = _METRICS[gate.metric]
    n_subjects = len(dict.fromkeys(timing.subject.name for timing in report.timings))
    if metric.relative and n_subjects < 2:
        raise UsageError(f"--require {gate.text}: compares with the first model; give two models or more")
    results: list[GateResult] = []
    for i, timing in enumerate(report.timings):
        if n_subjects > 1 and i % n_subjects == 0:
            continue
        value = _value(gate, timing, report.timings[i - i % n_subjects])
        passed = _OPERATORS[gate.comparison](value, gate.limit)
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
