"""One ONNX node: its inputs and attributes by name; it must never hold what its operator becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressor.errors import ModelError
from compressor.formats.onnx_import.values import Sizes, Value, entries_of


@dataclass(frozen=True)
class Op:
    """One ONNX node: `inputs` has None where an optional one is left out."""

    kind: str
    name: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    input_names: tuple[str, ...] = ()

    def given(self, position: int) -> Value | None:
        """An input, or None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def needed(self, position: int) -> Value:
        """An input that must be there. Raises: ModelError if it is not."""
        value = self.given(position)
        if value is None:
            raise ModelError(f"lacks its input {position}")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def axes(self, position: int | None = 1, name: str = "axes") -> list[int] | None:
        """Dimensions from an attribute (older opsets) or from an input (newer ones); None when not given."""
        if name in self.attributes:
            return list(self.attributes[name])
        value = self.given(position) if position is not None else None
        return None if value is None else integers(value)


def integers(value: Value) -> list[int]:
    """A constant as integers. Raises: ModelError if it is computed, from data or from the batch size."""
    if isinstance(value, Sizes):
        raise ModelError("an argument depends on the batch size, where fixed numbers are needed")
    return [int(entry) for entry in entries_of(value).reshape(-1)]
