"""A program written as a verified file for other runtimes; it must never hold passes that change what the
network computes."""

from compressor.exporting.archive import export_pt2
from compressor.exporting.export import export_onnx
from compressor.exporting.exported import Check, ExportReport
from compressor.exporting.huggingface import export_huggingface
from compressor.exporting.recheck import check_onnx
from compressor.exporting.runnable import feeds_of, to_runnable
from compressor.exporting.source import export_python
from compressor.exporting.verify import CONVERTED_LIMITS, LIMITS

__all__ = [
    "CONVERTED_LIMITS",
    "LIMITS",
    "Check",
    "ExportReport",
    "check_onnx",
    "export_huggingface",
    "export_onnx",
    "export_pt2",
    "export_python",
    "feeds_of",
    "to_runnable",
]
