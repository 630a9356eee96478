"""From a parsed ONNX model to a program: nodes in order, inputs, outputs, and what the batch is.

It must never hold what a single operator means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import torch
from onnx import AttributeProto, TensorProto

from compressor.errors import ModelError, UsageError
from compressor.formats.names import variables_of
from compressor.formats.onnx_import import operators as _operators  # noqa: F401 (fills the table)
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.fuse import fuse
from compressor.formats.onnx_import.read import OnnxModel, needed_nodes, read_model, subgraphs, tensor_of
from compressor.formats.onnx_import.table import IMPORTERS, SIZE_IMPORTERS, Op, check_supported
from compressor.formats.onnx_import.values import Const, Sizes, Traced, Value
from compressor.program import InputSpec, Program, ProgramModule, Record
from compressor.program.shapes import traced_shapes

_TRIALS = ((2, 3, 1, 997), (2, 3, 5, 8))
"""Batch sizes that every value is measured at: what differs between them depends on the batch, and what does not is taken
for a number. So they go from the smallest to one beyond any bound that a file may hold (`min(batch, 64)`). The second set
is for files that need several samples, or have tables of so many rows."""

_DTYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float32", TensorProto.BFLOAT16: "float32",
    TensorProto.DOUBLE: "float64", TensorProto.INT64: "int64", TensorProto.INT32: "int32", TensorProto.BOOL: "bool",
    TensorProto.UINT8: "uint8",
}  # fmt: skip
_LARGEST_INPUT = 2**31
_UNFIT = re.compile(r"[^A-Za-z0-9_.:/@ -]", re.ASCII)


@dataclass(frozen=True)
class _Inputs:
    """What goes in: with an open batch, and the batch that the file fixes, if it does."""

    specs: tuple[InputSpec, ...]
    fixed: int | None


def import_onnx(
    file: BinaryIO,
    name: str,
    *,
    folder: Path | None = None,
    inputs: Sequence[InputSpec] = (),
    record: Record | None = None,
) -> Program:
    """The program that an ONNX file holds; weights are parameters under the names that the exporter left.

    `inputs` gives sizes that the file leaves open. A batch that the file fixes is opened where the graph allows it;
    where not, the program keeps it and says so in its notes.

    Raises:  ModelError if the file is no sound ONNX or holds an operator without importer; UsageError if a size that
             the file leaves open is not given.
    """
    try:
        return _imported(file, name, folder, inputs, record or Record())
    except UnicodeDecodeError as error:  # protobuf looks at text only when it is read
        raise ModelError(f"{name}: is damaged: a name in it is no text") from error


def _imported(file: BinaryIO, name: str, folder: Path | None, inputs: Sequence[InputSpec], start: Record) -> Program:
    model = read_model(file, name, folder)
    nodes = needed_nodes(model.graph, [value.name for value in model.graph.output])
    check_supported(list(_operators_of(nodes)), name)
    found = _inputs(model, inputs, name)
    notes = [*start.notes, f"imported from ONNX: opset {model.opset}, {model.producer}", *model.notes]
    try:
        program = _built(model, nodes, found, name, _TRIALS)
        if found.fixed is not None:
            if not _samples_are_independent(program, found.fixed):
                raise ModelError("what it computes for a sample would depend on the others in its batch")
            notes.append(f"the file fixes the batch at {found.fixed}; it was opened")
    except ModelError as error:
        batch = found.fixed or 1
        fixed = replace(found, specs=tuple(_at_batch(spec, batch) for spec in found.specs))
        try:
            program = _built(model, nodes, fixed, name, (batch,))
        except ModelError as second:
            raise second from error
        notes.append(f"imported with the batch fixed at {batch}: {str(error).removeprefix(f'{name}: ')}")
    return program.replace(record=replace(start, notes=tuple(notes)))


def _operators_of(nodes: Iterable[onnx.NodeProto]) -> Iterable[tuple[str, str, str]]:
    for node in nodes:
        yield node.domain, node.op_type, node.name or (node.output[0] if node.output else "")
        for graph in subgraphs(node):
            yield from _operators_of(graph.node)


def _inputs(model: OnnxModel, given: Sequence[InputSpec], name: str) -> _Inputs:
    """The inputs that are no weights. Raises: UsageError if sizes are open and not given."""
    values = [value for value in model.graph.input if value.name not in model.tensors]
    if not values:
        raise ModelError(f"{name}: has no inputs, so there is nothing to prune for")
    if given and len(given) != len(values):
        raise UsageError(f"{name}: has {len(values)} inputs, --input gives {len(given)}")
    specs, fixed = [], []
    for position, value in enumerate(values):
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type not in _DTYPES:
            raise ModelError(f"{name}: its input {value.name} is no tensor of a type that is supported")
        told = next((spec for spec in given if spec.name == value.name), given[position] if given else None)
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        dims = list(told.shape) if told is not None else dims
        if not dims or any(size is None or size < 1 for size in dims[1:]):
            shown = "x".join("?" if size is None else str(size) for size in dims[1:]) or "no shape"
            raise UsageError(
                f"{name}: leaves sizes open: its input {value.name} is {shown}; give --input, such as 3x224x224"
            )
        fixed.append(dims[0] if told is None and dims[0] is not None and dims[0] > 0 else None)
        dtype, high = _DTYPES[kind.elem_type], None if told is None else told.high
        spec = InputSpec(value.name, (None, *dims[1:]), dtype, high)
        if torch.Size(spec.concrete(1)).numel() > _LARGEST_INPUT:
            raise ModelError(f"{name}: its input {value.name} would be larger than any memory: {spec.shape[1:]}")
        specs.append(spec)
    batch = next((size for size in fixed if size is not None), None)
    return _Inputs(tuple(specs), batch)


def _at_batch(spec: InputSpec, batch: int) -> InputSpec:
    return replace(spec, shape=(batch, *spec.shape[1:]))


def _built(
    model: OnnxModel, nodes: Sequence[onnx.NodeProto], inputs: _Inputs, name: str, trials: tuple[int, ...]
) -> Program:
    emitter = Emitter(trials, inputs.fixed if len(trials) > 1 else None)
    walker = _Walker(emitter, model.opset, name)
    walker.define_constants(model, nodes)
    variables = variables_of([spec.name for spec in inputs.specs])
    for spec, variable in zip(inputs.specs, variables, strict=True):
        node = emitter.graph.placeholder(variable)
        shapes = [spec.concrete(batch) for batch in trials]
        metas = tuple(torch.empty(shape, dtype=spec.torch_dtype, device="meta") for shape in shapes)
        node.meta["val"] = metas[0]
        walker.values[spec.name] = Traced(node, metas)
    walker.run(nodes)
    outputs = [(value.name, walker.value(value.name, "the output")) for value in model.graph.output]
    traced = [(output, emitter.traced(value)) for output, value in outputs]
    results: Any = traced[0][1].node if len(traced) == 1 else {_key(key): value.node for key, value in traced}
    emitter.graph.output(results)
    _remove_unread(emitter)
    fuse(emitter.graph, emitter.tensors)
    emitter.graph.lint()
    traced_at = traced_shapes(emitter.graph, emitter.tensors)
    module = ProgramModule(emitter.tensors, emitter.graph)
    module.eval()
    return Program(module, inputs.specs, traced=traced_at)


def _key(name: str) -> str:
    """The name of an output, without what generated code could not hold."""
    return _UNFIT.sub("_", name)[:100]


def _remove_unread(emitter: Emitter) -> None:
    """Nodes and tensors that nothing reads; sizes that turned out not to be needed among them."""
    for node in reversed(list(emitter.graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users:
            emitter.graph.erase_node(node)
    read = {node.target for node in emitter.graph.nodes if node.op == "get_attr"}
    for name in [name for name in emitter.tensors if name not in read]:
        del emitter.tensors[name]


@torch.no_grad()
def _samples_are_independent(program: Program, batch: int) -> bool:
    """Whether samples in one batch get what they get each in its own: the proof that the right dimension was opened."""
    both = program.example_inputs(2 * batch)
    try:
        alone = [program.module(*(x[i * batch : (i + 1) * batch] for x in both)) for i in range(2)]
        together = _leaves(program.module(*both))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(f"it does not run with more samples: {str(error).splitlines()[0][:200]}") from error
    for i, outputs in enumerate(map(_leaves, alone)):
        for whole, part in zip(together, outputs, strict=True):
            if whole.dim() == 0 or whole.shape[0] != 2 * part.shape[0]:
                return False
            mine = whole[i * part.shape[0] : (i + 1) * part.shape[0]]
            if not torch.allclose(mine, part, rtol=1e-3, atol=_close(part), equal_nan=True):
                return False
    return True


def _close(values: torch.Tensor) -> float:
    finite = values[values.isfinite()]
    return 1e-3 * float(finite.abs().max() if finite.numel() else 1.0) + 1e-9


def _leaves(output: Any) -> list[torch.Tensor]:
    return [part.double() for part in (output.values() if isinstance(output, dict) else [output])]


class _Walker:
    """Imports nodes one after the other; values by ONNX name."""

    def __init__(self, emitter: Emitter, opset: int, name: str) -> None:
        self.emitter, self.opset, self.name = emitter, opset, name
        self.values: dict[str, Value] = {}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        emitter.known = self.values.get

    def define_constants(self, model: OnnxModel, nodes: Sequence[onnx.NodeProto]) -> None:
        """Initializers were trained; `Constant` nodes were not, unless the file keeps all weights in them."""
        self._weights_in_nodes = not any(tensor.is_floating_point() for tensor in model.tensors.values())
        for name, tensor in model.tensors.items():
            self.values[name] = Const(tensor, name, tensor.is_floating_point())
        for node in nodes:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        for output in model.graph.output:
            self._consumers.setdefault(output.name, []).extend([onnx.NodeProto()] * 2)
        self.emitter.consumers = self._consumers

    def run(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            self._import(node)

    def value(self, name: str, reader: str) -> Value:
        """Raises:  ModelError if nothing before computes it: the file lacks a tensor, or runs in a circle."""
        found = self.values.get(name)
        if found is None:
            raise ModelError(f"{self.name}: {reader} reads {name}, which nothing in the file computes before it")
        return found

    def _import(self, node: onnx.NodeProto) -> None:
        where = node.name or (node.output[0] if node.output else "")
        if node.output and node.output[0] in self.emitter.absorbed:
            self.values[node.output[0]] = self.emitter.absorbed[node.output[0]]
            return
        inputs = tuple(self.value(name, f"{node.op_type} {where}") if name else None for name in node.input)
        attributes = {entry.name: self._attribute(entry) for entry in node.attribute}
        if node.op_type == "If":
            self._branch(node, inputs, attributes, where)
            return
        op = Op(node.op_type, where, inputs, tuple(node.output), attributes, self.opset, tuple(node.input))
        results = self._result(op)
        for name, result in zip(node.output, results, strict=False):
            if name:
                self.values[name] = _named(result, name, trained=node.op_type == "Constant" and self._weights_in_nodes)
        missing = [name for name in node.output[len(results) :] if name and self._consumers.get(name)]
        if missing:
            raise ModelError(f"{self.name}: {node.op_type} {where}: its further output {missing[0]} is not supported")

    def _result(self, op: Op) -> tuple[Value, ...]:
        importer = SIZE_IMPORTERS[op.kind] if _is_size_arithmetic(op) else IMPORTERS[op.kind]
        self.emitter.op = op
        try:
            found = importer(self.emitter, op)
        except ModelError as error:
            raise ModelError(f"{self.name}: {op.kind} {op.name}: {error}") from error
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError, OverflowError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise ModelError(f"{self.name}: {op.kind} {op.name}: its arguments do not fit: {lines[0][:200]}") from error
        finally:
            self.emitter.op = None
        return found if isinstance(found, tuple) else (found,)

    def _attribute(self, entry: AttributeProto) -> Any:
        if entry.type == AttributeProto.TENSOR:
            return tensor_of(entry.t, self.name)
        if entry.type == AttributeProto.GRAPH:
            return entry.g
        value = onnx.helper.get_attribute_value(entry)
        if isinstance(value, bytes):
            return value.decode("utf-8", errors="replace")
        return (
            [part.decode("utf-8", errors="replace") if isinstance(part, bytes) else part for part in value]
            if (entry.type in (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS))
            else value
        )

    def _branch(
        self, node: onnx.NodeProto, inputs: Sequence[Value | None], attributes: Mapping[str, Any], where: str
    ) -> None:
        """An `If` whose condition is known while importing is its branch; its inner names may hide no outer ones."""
        condition = inputs[0] if inputs else None
        if not isinstance(condition, Const) or condition.tensor.numel() != 1:
            raise ModelError(
                f"{self.name}: If {where}: its condition depends on the input; export the network without branches"
            )
        graph = attributes["then_branch" if bool(condition.tensor.reshape(())) else "else_branch"]
        for tensor in graph.initializer:
            self.values[tensor.name] = Const(tensor_of(tensor, self.name), tensor.name, True)
        for inner in graph.node:
            for name in inner.input:
                self._consumers.setdefault(name, []).append(inner)
        self.run(needed_nodes(graph, [value.name for value in graph.output]))
        for name, value in zip(node.output, graph.output, strict=True):
            self.values[name] = self.value(value.name, f"If {where}")


def _is_size_arithmetic(op: Op) -> bool:
    """Whether a node computes with sizes alone: integers, some of which depend on the batch."""
    given = [value for value in op.inputs if value is not None]
    whole = not any(isinstance(value, Traced) or value.dtype.is_floating_point for value in given)
    return whole and op.kind in SIZE_IMPORTERS and any(isinstance(value, Sizes) for value in given)


def _named(value: Value, name: str, *, trained: bool) -> Value:
    """The value of a `Constant` node under its ONNX name."""
    if isinstance(value, Const) and not value.name:
        return Const(value.tensor, name, trained and value.tensor.is_floating_point())
    return value
