"""How fast models are, measured side by side in one run; it must never hold a way to change or write a
model."""

from compressor.timing.bench import bench
from compressor.timing.measure import RoundProgress
from compressor.timing.providers import available_providers
from compressor.timing.require import Gate, GateResult, parse_requirement, require
from compressor.timing.result import BenchReport, BenchWarning, Environment, Subject, Timing, WarningKind
from compressor.timing.statistics import Comparison, compare

__all__ = [
    "BenchReport",
    "BenchWarning",
    "Comparison",
    "Environment",
    "Gate",
    "GateResult",
    "RoundProgress",
    "Subject",
    "Timing",
    "WarningKind",
    "available_providers",
    "bench",
    "compare",
    "parse_requirement",
    "require",
]
