"""Element types of tensors by all the names that they have; it must never hold which of them an operator takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ElementType:
    """`name` is torch's and ours, `onnx` that of ONNX. A network may be given it (`is_input`); numpy may lack it."""

    name: str
    onnx: str
    is_input: bool = True
    in_numpy: bool = True

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.name)

    @property
    def runtime(self) -> str:
        """As onnxruntime writes it."""
        return f"tensor({self.onnx.lower()})"

    @property
    def is_half(self) -> bool:
        return self.name in ("float16", "bfloat16")

    @property
    def widened(self) -> str:
        """The name of the type that an imported network computes in: 16-bit floats become 32-bit ones."""
        return "float32" if self.is_half else self.name


ELEMENT_TYPES = (
    ElementType("float32", "FLOAT"),
    ElementType("float64", "DOUBLE"),
    ElementType("float16", "FLOAT16"),
    ElementType("bfloat16", "BFLOAT16", in_numpy=False),
    ElementType("int64", "INT64"),
    ElementType("int32", "INT32"),
    ElementType("bool", "BOOL"),
    ElementType("uint8", "UINT8"),
    ElementType("int8", "INT8", is_input=False),
    ElementType("int16", "INT16", is_input=False),
)
"""What a tensor of a network may hold."""
