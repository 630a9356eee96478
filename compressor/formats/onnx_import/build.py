"""From a parsed ONNX model to a program: nodes in order, inputs, outputs, and where their values are in the file.

It must never hold what a single operator means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
import torch
from onnx import AttributeProto
from torch import Tensor

from compressor.errors import ModelError, first_line
from compressor.formats.names import variables_of
from compressor.formats.onnx_import.attributes import check_attributes
from compressor.formats.onnx_import.budget import TooMuchError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.fuse import fuse
from compressor.formats.onnx_import.locate import Trace
from compressor.formats.onnx_import.read import OnnxModel, needed_nodes, tensor_of
from compressor.formats.onnx_import.table import IMPORTERS, SIZE_IMPORTERS, Op
from compressor.formats.onnx_import.values import BranchesError, Const, Sizes, Traced, Value
from compressor.program import InputSpec, Program, ProgramModule
from compressor.program.shapes import traced_shapes

_TRACE = "trace"
_UNFIT = re.compile(r"[^A-Za-z0-9_.:/@ -]", re.ASCII)


_NOT_OF_FLOATS = ("Div", "Mod")
"""What of two whole numbers gives a float that may be none."""

_GROWTH = ((1, 2, 3, 2), (1, 3, 2, 4))
"""What open sizes are multiplied by at each trial, neighbouring ones by different numbers: whole multiples, because a
network that halves its images wants sizes that can be halved as often."""


@dataclass(frozen=True)
class Form:
    """How a file is imported: `specs` go in, all sizes are measured at the batches `trials`.

    `opened` is the batch that the file fixes where it is imported with an open one. `growing` are dimensions of each
    input whose sizes stay open: they differ between the trials too.
    """

    specs: tuple[InputSpec, ...]
    trials: tuple[int, ...]
    opened: int | None = None
    growing: tuple[tuple[int, ...], ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether any number of samples may go in."""
        return all(spec.shape[0] is None for spec in self.specs)

    @property
    def grows(self) -> bool:
        """Whether sizes behind the batch stay open."""
        return any(self.growing)

    def shapes(self, position: int) -> list[tuple[int, ...]]:
        """The shape of an input at every trial."""
        spec = self.specs[position]
        dims = self.growing[position] if self.growing else ()
        found: list[tuple[int, ...]] = []
        for trial, batch in enumerate(self.trials):
            times = {dim: _GROWTH[i % 2][trial % 4] for i, dim in enumerate(dims)}
            found.append(tuple(size * times.get(dim, 1) for dim, size in enumerate(spec.concrete(batch))))
        return found


@dataclass(frozen=True)
class Built:
    """A program, and where the values of its nodes are in the file: several values are one where nothing is done.

    `divisions` are whole dividends and divisors of which a quotient may not exist.
    """

    program: Program
    traces: Mapping[str, tuple[Trace, ...]]
    divisions: tuple[tuple[Value, Value], ...] = ()


def build(
    model: OnnxModel,
    nodes: Sequence[onnx.NodeProto],
    form: Form,
    name: str,
    numbers: Mapping[str, Tensor] | None = None,
) -> Built:
    """The program that the nodes become, with the inputs and the batch of that form; `numbers` are bound inputs.

    Raises:  ModelError if a node does not fit its inputs or cannot be imported with that batch.
    """
    # Several forms of one file are built; each may make its constants again.
    emitter = Emitter(form.trials, form.opened, replace(model.budget, n_elements=0, n_products=0))
    walker = _Walker(emitter, model.opset, name)
    walker.define_constants(model, nodes)
    walker.values |= {bound: Const(tensor, bound) for bound, tensor in (numbers or {}).items()}
    variables = variables_of([spec.name for spec in form.specs])
    for position, (spec, variable) in enumerate(zip(form.specs, variables, strict=True)):
        node = emitter.graph.placeholder(variable)
        metas = tuple(torch.empty(shape, dtype=spec.torch_dtype, device="meta") for shape in form.shapes(position))
        node.meta["val"] = metas[0]
        walker.values[spec.name] = Traced(node, metas)
    walker.run(nodes)
    outputs = [(value.name, walker.value(value.name, "the output")) for value in model.graph.output]
    traced = [emitter.traced(value) for _, value in outputs]
    keys = _keys([key for key, _ in outputs])
    results: Any = traced[0].node if len(traced) == 1 else dict(zip(keys, (v.node for v in traced), strict=True))
    emitter.graph.output(results)
    _remove_unread(emitter)
    if fuse(emitter.graph, emitter.tensors):
        _remove_unread(emitter)
    emitter.graph.lint()
    traced_at = traced_shapes(emitter.graph, emitter.tensors)
    traces = {node.name: tuple(node.meta.pop(_TRACE)) for node in emitter.graph.nodes if _TRACE in node.meta}
    module = ProgramModule(emitter.tensors, emitter.graph)
    module.eval()
    return Built(Program(module, form.specs, traced=traced_at), traces, tuple(emitter.divisions))


def _keys(names: Sequence[str]) -> list[str]:
    """Names of outputs without what generated code could not hold, each once."""
    keys: list[str] = []
    for name in names:
        plain = _UNFIT.sub("_", name)[:100]
        n = sum(key == plain or key.startswith(f"{plain}#") for key in keys)
        keys.append(f"{plain}#{n}" if n else plain)
    return keys


def _remove_unread(emitter: Emitter) -> None:
    """Nodes and tensors that nothing reads; sizes that turned out not to be needed among them."""
    for node in reversed(list(emitter.graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users:
            emitter.graph.erase_node(node)
    read = {node.target for node in emitter.graph.nodes if node.op == "get_attr"}
    for name in [name for name in emitter.tensors if name not in read]:
        del emitter.tensors[name]


class _Walker:
    """Imports nodes one after the other; values by ONNX name."""

    def __init__(self, emitter: Emitter, opset: int, name: str) -> None:
        self.emitter, self.opset, self.name = emitter, opset, name
        self.values: dict[str, Value] = {}
        self._n_inside = 0
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
            self.emitter.budget.check_time()
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
            taken = self.values[node.output[0]] = self.emitter.absorbed[node.output[0]]
            self._trace(taken, node.output[0], f"{node.op_type} {where}", instead=True)
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
                self._trace(result, name, f"{op.kind} {op.name}")
        missing = [name for name in node.output[len(results) :] if name and self._consumers.get(name)]
        if missing:
            raise ModelError(f"{self.name}: {node.op_type} {where}: its further output {missing[0]} is not supported")

    def _trace(self, value: Value, name: str, operator: str, *, instead: bool = False) -> None:
        """Remembers a value of the file that a node computes, or passes on; nothing can look into a branch."""
        if not isinstance(value, Traced) or value.node.op == "get_attr" or self._n_inside:
            return
        traces = value.node.meta.setdefault(_TRACE, [])
        if instead:
            traces.clear()
        traces.append(Trace(name, operator))

    def _result(self, op: Op) -> tuple[Value, ...]:
        self.emitter.op = op
        try:
            check_attributes(op.kind, op.attributes, self.opset)
            found = self._importer(op)
        except TooMuchError as error:
            raise TooMuchError(f"{self.name}: {op.kind} {op.name}: {error}") from error
        except ModelError as error:
            raise ModelError(f"{self.name}: {op.kind} {op.name}: {error}") from error
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError, OverflowError, MemoryError) as error:
            told = f"{op.kind} {op.name}: its arguments do not fit: {first_line(error)}"
            raise ModelError(f"{self.name}: {told}") from error
        finally:
            self.emitter.op = None
        return found if isinstance(found, tuple) else (found,)

    def _importer(self, op: Op) -> Value | tuple[Value, ...]:
        """What the operator becomes; floats that are sizes are tensors to all but size arithmetic and `Range`."""
        if _is_size_arithmetic(op):
            return SIZE_IMPORTERS[op.kind](self.emitter, op)
        if op.kind != "Range":
            inputs = [
                self.emitter.tensor_of(v) if isinstance(v, Sizes) and v.dtype.is_floating_point else v
                for v in op.inputs
            ]
            op = replace(op, inputs=tuple(inputs))
        return IMPORTERS[op.kind](self.emitter, op)

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
        if isinstance(condition, Sizes):
            raise BranchesError(f"{self.name}: If {where}: which of two networks this is depends on the batch size")
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
        self._n_inside += 1
        self.run(needed_nodes(graph, [value.name for value in graph.output]))
        self._n_inside -= 1
        for name, value in zip(node.output, graph.output, strict=True):
            self.values[name] = self.value(value.name, f"If {where}")
            self._trace(self.values[name], name, f"If {where}")


def _is_size_arithmetic(op: Op) -> bool:
    """Whether a node computes with sizes alone: integers, or whole floats, some of which depend on the batch."""
    given = [value for value in op.inputs if value is not None]
    if op.kind not in SIZE_IMPORTERS or not any(isinstance(value, Sizes) for value in given):
        return False
    floats = [value for value in given if value.dtype.is_floating_point]
    if floats and (op.kind in _NOT_OF_FLOATS or any(isinstance(v, Const) and not v.is_whole for v in floats)):
        return False
    return not any(isinstance(value, Traced) for value in given)


def _named(value: Value, name: str, *, trained: bool) -> Value:
    """The value of a `Constant` node under its ONNX name."""
    if isinstance(value, Const) and not value.name:
        return Const(value.tensor, name, trained and value.tensor.is_floating_point())
    return value
