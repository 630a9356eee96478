"""What `bench --require` may ask about, read without what measures it; it must never need torch or onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping

from compressor.gates import FACTOR, SHARE, SIZE_METRIC, Gate, GateMetric, parse_gate
from compressor.units import format_ratio, format_seconds

_TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}

METRICS: Mapping[str, GateMetric] = {
    "speedup": GateMetric(FACTOR, format_ratio, relative=True),
    "ratio": GateMetric(FACTOR, format_ratio, relative=True),
    "latency": GateMetric(_TIME, format_seconds),
    "p99": GateMetric(_TIME, format_seconds),
    "throughput": GateMetric({"": 1.0, "/s": 1.0}, lambda value: f"{value:.4g}/s"),
    "accuracy": GateMetric(SHARE, lambda value: f"{value:.4f}"),
    "size": SIZE_METRIC,
    "memory": SIZE_METRIC,
    "gzip": SIZE_METRIC,
}


def parse_requirement(text: str) -> Gate:
    """A gate from `speedup>=3`, `latency<=2ms`, `accuracy>=0.98`, `size<=1MiB` or `ratio>=10`.

    Raises:  UsageError naming the nearest metric or the units that are known.
    """
    return parse_gate(text, METRICS)
