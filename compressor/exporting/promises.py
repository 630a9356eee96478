"""A written graph as the file that its network came from promised: types of inputs and outputs, inputs that were bound.

It must never name a value or open a size; those the conversion does.
"""

from __future__ import annotations

import onnx_ir as ir

from compressor.program.element_types import ELEMENT_TYPES
from compressor.program.interface import Interface, Port

_TYPES = {kind.name: ir.DataType[kind.onnx] for kind in ELEMENT_TYPES}
NOT_FED = "bfloat16"
"""The one type that no array of numpy has: a file with such an input could not be run to be checked."""


def keep(model: ir.Model, interface: Interface) -> tuple[str, ...]:
    """Gives inputs and outputs the types of the interface, puts bound inputs back; notes on what is otherwise."""
    notes = []
    graph = model.graph
    for port, value in zip(interface.read, list(graph.inputs), strict=True):
        if port.dtype == NOT_FED:
            notes.append(f"input {port.name} is float32, {NOT_FED} in the original")
        elif _differs(port, value):
            _cast_input(graph, port, value)
    for position, port in enumerate(interface.outputs):
        value = graph.outputs[position]
        if port.dtype == NOT_FED:
            notes.append(f"output {port.name} is float32, {NOT_FED} in the original")
        elif port.dtype and _differs(port, value):
            _cast_output(graph, position, port)
    for position, port in enumerate(interface.inputs):
        if port.value is not None and port.dtype != NOT_FED:
            shape = ir.Shape([size for size in port.shape or () if isinstance(size, int)])
            graph.inputs.insert(position, ir.Value(name=port.name, type=ir.TensorType(_TYPES[port.dtype]), shape=shape))
    return tuple(notes)


def _differs(port: Port, value: ir.Value) -> bool:
    return port.dtype in _TYPES and value.dtype is not None and value.dtype != _TYPES[port.dtype]


def _cast_input(graph: ir.Graph, port: Port, value: ir.Value) -> None:
    """The graph reads what it read before; its input is what that is cast from."""
    assert value.dtype is not None
    position = graph.inputs.index(value)
    given = ir.Value(name=value.name, type=ir.TensorType(_TYPES[port.dtype]), shape=value.shape)
    node = ir.node("Cast", [given], attributes={"to": value.dtype}, name=f"{value.name}_widened")
    inner = node.outputs[0]
    inner.name, inner.type, inner.shape = f"{value.name}_widened", value.type, value.shape
    for user, i in list(value.uses()):
        user.replace_input_with(i, inner)
    for i, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[i] = inner
    graph.inputs[position] = given
    graph.insert_before(graph[0], node) if len(graph) else graph.append(node)


def _cast_output(graph: ir.Graph, position: int, port: Port) -> None:
    value = graph.outputs[position]
    name, shape = value.name, value.shape
    node = ir.node("Cast", [value], attributes={"to": _TYPES[port.dtype]}, name=f"{name}_narrowed")
    value.name = f"{name}_inner"
    made = node.outputs[0]
    made.name, made.type, made.shape = name, ir.TensorType(_TYPES[port.dtype]), shape
    graph.append(node)
    graph.outputs[position] = made
