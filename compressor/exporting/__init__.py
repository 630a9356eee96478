"""A program written as a verified ONNX file; it must never hold passes that change what the network
computes."""

from compressor.exporting.export import export_onnx
from compressor.exporting.result import ExportReport
from compressor.exporting.verify import LIMITS

__all__ = ["LIMITS", "ExportReport", "export_onnx"]
