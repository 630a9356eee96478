"""What goes into an imported network, and whether its batch may be opened; it must never look at a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
import torch
from onnx import TensorProto

from compressor.errors import ModelError, UsageError
from compressor.formats.onnx_import.read import OnnxModel
from compressor.program import InputSpec
from compressor.program.element_types import ELEMENT_TYPES

_DTYPES: Mapping[int, str] = {
    TensorProto.DataType.Value(kind.onnx): kind.widened for kind in ELEMENT_TYPES if kind.is_input
}
_LARGEST_INPUT = 2**31


@dataclass(frozen=True)
class Inputs:
    """The inputs with an open batch; `held` is the first size of each in the file, None where that leaves it open."""

    specs: tuple[InputSpec, ...]
    held: tuple[int | None, ...]

    @property
    def fixed(self) -> int | None:
        """The batch that the file fixes, the same for all inputs; None if it fixes none."""
        return self.held[0] if len(set(self.held)) == 1 else None

    @property
    def why_not_open(self) -> str | None:
        """Why no batch of its own can be given to every input; None if it can."""
        if len(set(self.held)) == 1:
            return None
        sizes = [f"{spec.name} {size or 'open'}" for spec, size in zip(self.specs, self.held, strict=True)]
        return f"the first sizes of its inputs differ ({', '.join(sizes)})"

    def at_own_batch(self) -> tuple[InputSpec, ...]:
        """The inputs with the sizes that the file fixes; one sample where it leaves them open."""
        pairs = zip(self.specs, self.held, strict=True)
        return tuple(replace(spec, shape=(size or 1, *spec.shape[1:])) for spec, size in pairs)


def read_inputs(model: OnnxModel, given: Sequence[InputSpec], name: str) -> Inputs:
    """The inputs that are no weights. Raises: UsageError if sizes are open and not given."""
    values = [value for value in model.graph.input if value.name not in model.tensors]
    if not values:
        raise ModelError(f"{name}: has no inputs, so there is nothing to prune for")
    if given and len(given) != len(values):
        raise UsageError(f"{name}: has {len(values)} inputs, --input gives {len(given)}")
    specs, held = [], []
    for position, value in enumerate(values):
        told = next((spec for spec in given if spec.name == value.name), given[position] if given else None)
        spec, size = _input(value, told, name)
        specs.append(spec)
        held.append(size)
    return Inputs(tuple(specs), tuple(held))


def _input(value: onnx.ValueInfoProto, told: InputSpec | None, name: str) -> tuple[InputSpec, int | None]:
    """One input, and the first size that it has in the file."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in _DTYPES:
        raise ModelError(f"{name}: its input {value.name} is no tensor of a type that is supported")
    held = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    dims = held if told is None else list(told.shape)
    if kind.HasField("shape") and not held and told is None:
        raise ModelError(
            f"{name}: its input {value.name} is a single number, without a batch; make it an initializer of the file"
        )
    if not dims or any(size is None or size < 1 for size in dims[1:]):
        shown = "x".join("?" if size is None else str(size) for size in dims[1:]) or "of no known shape"
        raise UsageError(
            f"{name}: leaves sizes open: its input {value.name} is {shown}; give --input, such as 3x224x224"
        )
    if told is not None and told.free:
        raise UsageError(
            f"{name}: --input {told.name}: an ONNX file is read at one size; give a number for "
            f"{', '.join(filter(None, told.free))}"
        )
    spec = InputSpec(value.name, (None, *dims[1:]), _DTYPES[kind.elem_type], None if told is None else told.high)
    if torch.Size(spec.concrete(1)).numel() > _LARGEST_INPUT:
        raise ModelError(f"{name}: its input {value.name} would be larger than any memory: {spec.shape[1:]}")
    return spec, held[0] if held and held[0] is not None and held[0] > 0 else None
