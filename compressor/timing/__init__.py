"""How fast models are, measured side by side in one run; it must never hold a way to change or write a
model."""

from compressor.timing.bench import bench
from compressor.timing.glance import glance, side_by_side
from compressor.timing.measure import RoundProgress
from compressor.timing.measured import (
    BenchReport,
    BenchWarning,
    CutLatency,
    Environment,
    OperatorTime,
    Profile,
    Subject,
    Timing,
    WarningKind,
)
from compressor.timing.missing import why_missing
from compressor.timing.operator_clock import OperatorClock, default_cache
from compressor.timing.providers import available_providers
from compressor.timing.require import GateResult, require
from compressor.timing.statistics import Comparison, compare

__all__ = [
    "BenchReport",
    "BenchWarning",
    "Comparison",
    "CutLatency",
    "Environment",
    "GateResult",
    "OperatorClock",
    "OperatorTime",
    "Profile",
    "RoundProgress",
    "Subject",
    "Timing",
    "WarningKind",
    "available_providers",
    "bench",
    "compare",
    "default_cache",
    "glance",
    "require",
    "side_by_side",
    "why_missing",
]
