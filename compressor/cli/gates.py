"""`--require` of the commands that write a model: what may be asked, and what happens when it is not met.

It must never measure anything, and it never lets a result that failed a gate reach the output's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from compressor.errors import GateError, UsageError
from compressor.gates import COUNT_METRIC, FACTOR_METRIC, MEASURED, SIZE_METRIC, Gate, GateMetric, Verdict, judge
from compressor.gates import parse_gate as parse

if TYPE_CHECKING:
    from compressor.cli.options import GateOptions

_OF_DATA = MappingProxyType({"accuracy": MEASURED, "loss": MEASURED})
_COUNTED = MappingProxyType({"ratio": FACTOR_METRIC, "params": COUNT_METRIC, "macs": COUNT_METRIC})

METRICS: Mapping[str, Mapping[str, GateMetric]] = MappingProxyType(
    {
        "prune": {**_OF_DATA, **_COUNTED, "size": SIZE_METRIC},
        "retrain": {**_OF_DATA, "size": SIZE_METRIC},
        "compact": {**_OF_DATA, **_COUNTED, "macs_ratio": FACTOR_METRIC, "size": SIZE_METRIC},
        "export": {"size": SIZE_METRIC, "params": COUNT_METRIC, "agreement": MEASURED, "difference": MEASURED},
    }
)
"""Command -> what its gates may ask about, besides the metrics of a task given with --task."""

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


def gates_of(command: str, options: GateOptions) -> Gates:
    """The gates that were asked for, read before any work.

    Raises:  UsageError for one that is malformed or about something that the command does not measure.
    """
    known = METRICS[command]
    others = getattr(options, "task", None) is not None and "accuracy" in known
    return Gates(known, tuple(parse(text, known, others=others) for text in options.require or ()))
