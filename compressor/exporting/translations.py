"""ONNX forms of ATen operators that torch's exporter has none for; it must never hold one that torch has."""

from __future__ import annotations

from typing import Any

from onnxscript import opset18 as op


def stable_sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """`TopK` of all values along a dimension: ONNX says that of equal ones the first comes first."""
    size: Any = op.Shape(self, start=dim, end=dim + 1 or None)
    return op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)
