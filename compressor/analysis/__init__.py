"""What is in a network and what could go; it must never change one."""

from compressor.analysis.analyze import analyze
from compressor.analysis.costs import LayerCost, layer_costs
from compressor.analysis.explain import explain
from compressor.analysis.findings import Analysis, BlockRow, CoupledSlice, Explanation, LayerRow, PinRow, UnitGroup
from compressor.analysis.latencies import LayerLatency, layer_latencies
from compressor.analysis.sensitivity import scan_sensitivity
from compressor.asking import ScanSettings

__all__ = [
    "Analysis",
    "BlockRow",
    "CoupledSlice",
    "Explanation",
    "LayerCost",
    "LayerLatency",
    "LayerRow",
    "PinRow",
    "ScanSettings",
    "UnitGroup",
    "analyze",
    "explain",
    "layer_costs",
    "layer_latencies",
    "scan_sensitivity",
]
