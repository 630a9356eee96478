"""ONNX files as programs: every operator becomes ATen calls, by one table.

It must never run what a file holds while reading it, nor guess about an operator that the table lacks.
"""

from compressor.formats.onnx_import.attempts import import_onnx

__all__ = ["import_onnx"]
