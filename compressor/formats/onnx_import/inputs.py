"""What goes into an imported network, and whether its batch may be opened; it must never look at a node."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
import torch
from onnx import TensorProto
from torch import Tensor

from compressor.errors import ModelError, UsageError
from compressor.formats.onnx_import.read import OnnxModel
from compressor.program import InputSpec
from compressor.program.element_types import ELEMENT_TYPES
from compressor.program.interface import Dim, Interface, Port, open_name
from compressor.program.spec import told_by_name

_NAMES: Mapping[int, str] = {TensorProto.DataType.Value(kind.onnx): kind.name for kind in ELEMENT_TYPES}
_DTYPES: Mapping[int, str] = {
    TensorProto.DataType.Value(kind.onnx): kind.widened for kind in ELEMENT_TYPES if kind.is_input
}
_LARGEST_INPUT = 2**31
_MOST_METADATA = 2**22
"""Characters of a file's properties that are kept; the alphabets and label lists that programs read are thousands."""

_OURS = "compress."
"""Where the properties begin that an export writes itself."""


@dataclass(frozen=True)
class Inputs:
    """The inputs with an open batch; `held` is the first size of each in the file, None where that leaves it open.

    `open_sizes` are the dimensions behind the first that the file leaves open, for each; `bound` are tensors of inputs
    that a number was given for, by name. `interface` is what the file promises of both and of its outputs.
    """

    specs: tuple[InputSpec, ...]
    held: tuple[int | None, ...]
    open_sizes: tuple[tuple[int, ...], ...]
    interface: Interface
    bound: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()

    @property
    def fixed(self) -> int | None:
        """The batch that the file fixes, the same for all inputs; None if it fixes none."""
        return self.held[0] if len(set(self.held)) == 1 else None

    @property
    def has_open_sizes(self) -> bool:
        return any(self.open_sizes)

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
    told = told_by_name([value.name for value in values], given, name) if given else {}
    inputs = [_port(value, told.get(value.name), name) for value in values]
    read = [(value, port) for value, port in zip(values, inputs, strict=True) if port.value is None]
    if not read:
        raise ModelError(f"{name}: every input of it is bound to a number, so there is nothing to prune for")
    specs = tuple(_spec(value, told.get(value.name), name) for value, _ in read)
    shapes = [port.shape or () for _, port in read]
    held = tuple(shape[0] if shape and isinstance(shape[0], int) else None for shape in shapes)
    kinds = {value.name: _DTYPES[value.type.tensor_type.elem_type] for value in values}
    bound = {port.name: _number(port, kinds[port.name]) for port in inputs if port.value is not None}
    outputs = tuple(_output(value) for value in model.graph.output)
    metadata, dropped = _metadata(model)
    told_of_bound = [f"its input {n} is bound to {t.item():g}: an export takes it and reads it no more" for n, t in
                     bound.items()]  # fmt: skip
    notes = [*dropped, *_overriding(read, specs), *told_of_bound]
    interface = Interface(tuple(inputs), outputs, metadata)
    return Inputs(specs, held, tuple(port.open_sizes() for _, port in read), interface, bound, tuple(notes))


def _port(value: onnx.ValueInfoProto, told: InputSpec | None, name: str) -> Port:
    """What the file says of an input, and the number that it is bound to."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in _DTYPES:
        raise ModelError(f"{name}: its input {value.name} is no tensor of a type that is supported")
    shape = _dims(value)
    is_number = shape is not None and all(size == 1 for size in shape) and len(shape) < 2
    number = None if told is None or not is_number else told.value
    if shape == () and number is None:
        raise ModelError(
            f"{name}: its input {value.name} is a single number, without a batch; "
            f"say which: --input {value.name}=NUMBER"
        )
    return Port(value.name, _NAMES[kind.elem_type], shape, number)


def _number(port: Port, dtype: str) -> Tensor:
    """Shapes:  -> () or (1,)"""
    assert port.value is not None
    return torch.full((1,) * len(port.shape or ()), port.value).to(getattr(torch, dtype))


def _output(value: onnx.ValueInfoProto) -> Port:
    return Port(value.name, _NAMES.get(value.type.tensor_type.elem_type, ""), _dims(value))


def _text(found: str | bytes) -> str:
    """A name in a file; protobuf gives those as bytes that are no text."""
    return found if isinstance(found, str) else found.decode("utf-8", errors="replace")


def _dims(value: onnx.ValueInfoProto) -> tuple[Dim, ...] | None:
    """The sizes in the file, and names for those that it leaves open; None where it has none."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else open_name(_text(d.dim_param), dim)
        for dim, d in enumerate(kind.shape.dim)
    )


def _spec(value: onnx.ValueInfoProto, told: InputSpec | None, name: str) -> InputSpec:
    """One input with its batch open."""
    kind = value.type.tensor_type
    held = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    dims = held if told is None else list(told.shape)
    if told is not None and held and len(held) != len(dims):
        raise UsageError(
            f"{name}: its input {value.name} has {len(held)} dimensions with the batch, --input gives {len(dims)}"
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
    if math.prod(spec.concrete(1)) > _LARGEST_INPUT:
        raise ModelError(f"{name}: its input {value.name} would be larger than any memory: {spec.shape[1:]}")
    return spec


def _overriding(read: Sequence[tuple[onnx.ValueInfoProto, Port]], specs: Sequence[InputSpec]) -> Iterator[str]:
    """A note for every input of which the file fixes other sizes than were given."""
    for (_, port), spec in zip(read, specs, strict=True):
        pairs = list(zip((port.shape or ())[1:], spec.shape[1:], strict=False))
        if any(isinstance(held, int) and held != size for held, size in pairs):
            held, given = ("x".join(map(str, sizes)) for sizes in zip(*pairs, strict=True))
            yield f"--input gives {port.name} as {given} where the file has {held}: an export takes what was given"


def _metadata(model: OnnxModel) -> tuple[dict[str, str], list[str]]:
    """The file's own properties, and a note where they are too many."""
    read = {_text(key): _text(text) for key, text in model.metadata.items()}
    found = {key: text for key, text in read.items() if not key.startswith(_OURS)}
    size = sum(len(key) + len(text) for key, text in found.items())
    if size > _MOST_METADATA:
        return {}, [f"its {len(found)} properties, {size:,} characters, are too many to be kept; an export lacks them"]
    return found, []
