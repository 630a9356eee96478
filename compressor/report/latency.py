"""What a cut does to latency, in a line; it must never hold how that was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.units import format_ratio, format_seconds

if TYPE_CHECKING:
    from compressor.timing.measured import CutLatency


def latency_line(latency: CutLatency | None) -> str | None:
    """Before, after and how many times faster, with the interval; or an estimate, and why it is no more than that."""
    if latency is None:
        return None
    if latency.before_s is None or latency.after_s is None:
        told = f"latency: about {format_ratio(latency.speedup)} by the widths alone; not measured, {latency.estimated}"
        return told + _against_macs(latency)
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    return (
        f"latency {format_seconds(latency.before_s)} -> {format_seconds(latency.after_s)}: {speedup(latency)}, "
        f"onnxruntime, {threads}, batch {latency.batch}; `compress bench` measures longer" + _against_macs(latency)
    )


def _against_macs(latency: CutLatency) -> str:
    """A second line: how many MACs went for it, and where the rest is."""
    if latency.macs_ratio is None:
        return ""
    rest = f"; the rest: {'; '.join(latency.missing)}" if latency.missing else ""
    return f"\nfor {format_ratio(latency.macs_ratio)} fewer MACs{rest}"


def speedup(latency: CutLatency) -> str:
    """`1.83x (95 %: 1.75x to 1.90x)`."""
    if latency.low is None or latency.high is None:
        return format_ratio(latency.speedup)
    return f"{format_ratio(latency.speedup)} (95 %: {format_ratio(latency.low)} to {format_ratio(latency.high)})"
