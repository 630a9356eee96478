"""What is in a network and what could go; it must never change one."""

from compressor.analysis.analyze import analyze
from compressor.analysis.explain import explain
from compressor.analysis.result import Analysis, CoupledSlice, Explanation, LayerRow, PinRow, UnitGroup

__all__ = ["Analysis", "CoupledSlice", "Explanation", "LayerRow", "PinRow", "UnitGroup", "analyze", "explain"]
