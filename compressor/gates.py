"""Gates such as `accuracy>=0.99`: read with their units, held against measured values; it must never measure anything.

Which names a command's gates may have is a table of `GateMetric`; metrics of a task come in beside it.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from compressor.errors import UsageError
from compressor.units import format_bytes, format_count, format_ratio

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
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
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
