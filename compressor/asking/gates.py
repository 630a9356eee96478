"""Gates such as `accuracy>=0.99`: what each command's may ask about, read with their units, held against values.

The one home of gates: `METRICS` says what there is, metrics of a task come in beside it. It must never measure
anything.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from compressor.errors import GateError, UsageError
from compressor.nearest import did_you_mean
from compressor.units import format_bytes, format_count, format_ratio, format_seconds

_TEXT = re.compile(
    r"^\s*(?P<name>[a-z0-9_-]+)\s*(?P<op>>=|<=|>|<)\s*(?P<number>\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*(?P<unit>[^\s\d.]\S*)?\s*$",
    re.I,
)
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip

FACTOR: Mapping[str, float] = MappingProxyType({"": 1.0, "x": 1.0})
SIZE: Mapping[str, float] = MappingProxyType(
    {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
)
COUNT: Mapping[str, float] = MappingProxyType({"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9})
SHARE: Mapping[str, float] = MappingProxyType({"": 1.0, "%": 0.01})
TIME: Mapping[str, float] = MappingProxyType({"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9})
RATE: Mapping[str, float] = MappingProxyType({"": 1.0, "/s": 1.0})


@dataclass(frozen=True)
class GateMetric:
    """What a gate's name stands for: unit -> scale, and the text of a value; `relative` to another model."""

    units: Mapping[str, float]
    show: Callable[[float], str]
    relative: bool = False


MEASURED = GateMetric(SHARE, lambda value: f"{value:.4g}")
"""A metric of the task: accuracy, loss, or a name that only the task knows."""
FACTOR_METRIC = GateMetric(FACTOR, format_ratio)
SIZE_METRIC = GateMetric(SIZE, lambda value: format_bytes(int(value)))
COUNT_METRIC = GateMetric(COUNT, lambda value: format_count(int(value)))

_TIME_METRIC = GateMetric(TIME, format_seconds)
_OF_DATA = MappingProxyType({"accuracy": MEASURED, "loss": MEASURED})
_OF_ANSWERS = MappingProxyType({"agreement": MEASURED})
"""With the dense model's answers: what `prune` cuts, and the teacher of `retrain`."""
_COUNTED = MappingProxyType({"ratio": FACTOR_METRIC, "params": COUNT_METRIC, "macs": COUNT_METRIC})
_AGAINST_FIRST = GateMetric(FACTOR, format_ratio, relative=True)

METRICS: Mapping[str, Mapping[str, GateMetric]] = MappingProxyType(
    {
        "prune": {**_OF_DATA, **_OF_ANSWERS, **_COUNTED, "size": SIZE_METRIC},
        "retrain": {**_OF_DATA, **_OF_ANSWERS, "size": SIZE_METRIC},
        "compact": {**_OF_DATA, **_COUNTED, "macs_ratio": FACTOR_METRIC, "size": SIZE_METRIC},
        "export": {"size": SIZE_METRIC, "params": COUNT_METRIC, "agreement": MEASURED, "difference": MEASURED},
        "bench": {
            "speedup": _AGAINST_FIRST,
            "ratio": _AGAINST_FIRST,
            "latency": _TIME_METRIC,
            "p99": _TIME_METRIC,
            "throughput": GateMetric(RATE, lambda value: f"{value:.4g}/s"),
            "accuracy": GateMetric(SHARE, lambda value: f"{value:.4f}"),
            "size": SIZE_METRIC,
            "memory": SIZE_METRIC,
            "gzip": SIZE_METRIC,
        },
    }
)
"""Command -> what its gates may ask about, besides the metrics of a task given with --task."""


@dataclass(frozen=True)
class Gate:
    """One requirement; `limit` in seconds, bytes, a factor, a count or a share."""

    text: str
    metric: str
    comparison: str
    limit: float

    def passed(self, value: float) -> bool:
        return _OPERATORS[self.comparison](value, self.limit)


@dataclass(frozen=True)
class Verdict:
    """A gate and how it went; `message` says what was there instead, None when it was met."""

    text: str
    passed: bool
    message: str | None


def parse_gate(text: str, known: Mapping[str, GateMetric], *, others: bool = False) -> Gate:
    """A gate from `speedup>=3`, `latency<=2ms`, `accuracy>=98%`, `size<=1MiB` or `ratio>=10`.

    With `others` a name outside `known` is one of the task's metrics; it is looked at once they are measured.

    Raises:  UsageError naming the nearest metric or the units that are known.
    """
    match = _TEXT.match(text)
    if match is None:
        example = ", ".join(name + _EXAMPLES.get(name, ">=1") for name in list(known)[:3])
        raise UsageError(f"--require {text}: not a requirement; write it as {example}")
    name = match["name"].lower()
    if name not in known and not others:
        advice = did_you_mean(name, known, most=1) or f"use one of {', '.join(known)}"
        raise UsageError(f"--require {text}: {name} is not measured; {advice}")
    units = known.get(name, MEASURED).units
    scale = units.get((match["unit"] or "").lower())
    if scale is None:
        told = ", ".join(unit or "none" for unit in units)
        got = f"unknown unit {match['unit']}" if match["unit"] else "a unit is missing"
        raise UsageError(f"--require {text}: {got}; {name} takes: {told}")
    return Gate(text.strip(), name, match["op"], float(match["number"]) * scale)


def judge(
    gates: Sequence[Gate], known: Mapping[str, GateMetric], values: Mapping[str, float | None]
) -> tuple[Verdict, ...]:
    """Every gate held against its value; a value that is not there or not a number meets nothing."""
    verdicts: list[Verdict] = []
    for gate in gates:
        value = values.get(gate.metric)
        if value is None:
            verdicts.append(Verdict(gate.text, False, f"{gate.text}: {gate.metric} was not measured"))
            continue
        shown = known.get(gate.metric, MEASURED).show(value)
        met = gate.passed(value)
        verdicts.append(Verdict(gate.text, met, None if met else f"{gate.text}: got {shown}"))
    return tuple(verdicts)


_EXAMPLES = {
    "latency": "<=2ms", "p99": "<=5ms", "size": "<=1MiB", "memory": "<=64MiB", "ratio": ">=10", "speedup": ">=3",
    "accuracy": ">=0.98", "params": "<=50k", "macs": "<=1M", "loss": "<=0.2", "difference": "<=1e-4",
    "agreement": ">=99%",
}  # fmt: skip

_WITHOUT_DATA = frozenset({"ratio", "macs_ratio", "params", "macs", "size", "difference"})
_SHOWN = 3


@dataclass(frozen=True)
class Gates:
    """What one run must reach."""

    known: Mapping[str, GateMetric]
    gates: tuple[Gate, ...]

    @property
    def needs_data(self) -> str | None:
        """The first gate that only a data set can answer, as the subject of "... needs a data set"."""
        text = next((gate.text for gate in self.gates if gate.metric not in _WITHOUT_DATA), None)
        return None if text is None else f"--require {text}"

    def refuse_unmeasured(self, measured: Mapping[str, float]) -> None:
        """Nothing, when every gate about the task's metrics names one of those that the first batch gave.

        Raises:  UsageError naming the metrics that there are.
        """
        for gate in self.gates:
            if gate.metric not in _WITHOUT_DATA and gate.metric != "agreement" and gate.metric not in measured:
                names = ", ".join(sorted(measured))
                raise UsageError(f"--require {gate.text}: the task does not measure {gate.metric}; it gives {names}")

    def counted(self) -> Gates:
        """Those that need neither data nor a file: what a dry run can answer."""
        return replace(self, gates=tuple(g for g in self.gates if g.metric in _WITHOUT_DATA and g.metric != "size"))

    def judge(self, values: Mapping[str, float | None]) -> Verdicts:
        return Verdicts(judge(self.gates, self.known, values))


@dataclass(frozen=True)
class Verdicts:
    """How every gate went."""

    all: tuple[Verdict, ...] = ()

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.all)

    def body(self) -> dict[str, Any]:
        """The part of the JSON object; the same keys with and without gates."""
        requirements = [{"text": v.text, "passed": v.passed, "message": v.message} for v in self.all]
        return {"requirements": requirements, "passed": self.passed}

    def enforce(self, kept: Path | None = None) -> None:
        """Nothing, when all gates were met; `kept` is the resume point that holds the work.

        Raises:  GateError naming what was not met.
        """
        failed = [verdict.message or verdict.text for verdict in self.all if not verdict.passed]
        if not failed:
            return
        shown = "; ".join(failed[:_SHOWN]) + (f"; and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else "")
        told = f"{len(failed)} of {len(self.all)} requirements failed: {shown}\nthe model was not written"
        if kept is not None and kept.exists():
            told += f"; its training is in {kept}: take it all the same with --resume and other --require"
        raise GateError(told)


def gates_of(command: str, texts: Sequence[str], *, task: str | None = None) -> Gates:
    """The gates that were asked for, read before any work; with a task of the user's its metrics may be named too.

    Raises:  UsageError for one that is malformed or about something that the command does not measure.
    """
    known = METRICS[command]
    others = task is not None and "accuracy" in known
    return Gates(known, tuple(parse_gate(text, known, others=others) for text in texts))
