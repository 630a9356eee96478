"""Values that are made of positions alone, a copy for each of their readers, so that layers that share them need not
lose the same; it must never change what is computed.

The angles of rotary embeddings are computed once, and every layer multiplies its queries and keys by them: a feature
that goes from one layer would go from all.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Graph, Node

from compressor.program.module import ProgramModule
from compressor.program.naming import free_name
from compressor.program.program import Program
from compressor.program.shapes import TensorShape
from compressor.program.unread import erase_unread


def own_positions(program: Program, among: Collection[str] | None = None) -> Program:
    """The program with its own copy of a buffer, and of what is computed from it, for each place where weights or what
    they made meet that; of buffers `among` these names alone, where they are given. A program in which there is one
    such place at most comes back as it is.
    """
    shared = _shared(program, among)
    if not shared:
        return program
    graph = copy.deepcopy(program.module.graph)
    nodes = {node.name: node for node in graph.nodes}
    tensors = program.module.tensors()
    for meeting in shared:
        _copy_cone(graph, nodes, meeting, tensors)
    erase_unread(graph)
    graph.lint()
    return program.replace(module=_module(program, tensors, graph))


def _module(program: Program, tensors: dict[str, Tensor], graph: Graph) -> ProgramModule:
    named = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    module = ProgramModule({name: tensor for name, tensor in tensors.items() if name in named}, graph)
    module.training = program.module.training
    return module


@dataclass(frozen=True)
class _Meeting:
    """A value that is made of buffers, what makes it of them, and who meets it there, all by name."""

    value: str
    cone: tuple[str, ...]
    readers: tuple[str, ...]


def _shared(program: Program, among: Collection[str] | None) -> list[_Meeting]:
    """Every such place but the first of a buffer. Where all is asked for, what reads one value is one place: queries
    and keys of a layer read the same angles. Of `among`, each reader is a place: all layers read the same slopes.
    """
    parameters = program.parameters
    of_weights: set[Node] = set()
    cones: dict[Node, list[Node]] = {}
    met: dict[str, int] = {}
    found: list[_Meeting] = []
    for node in program.module.graph.nodes:
        if (node.op == "get_attr" and str(node.target) in parameters) or not of_weights.isdisjoint(
            node.all_input_nodes
        ):
            of_weights.add(node)
        elif (
            node.op == "get_attr"
            and _is_table(program.shapes.get(node.name))
            and (among is None or str(node.target) in among)
        ):
            cones[node] = [node]
        elif node.op == "call_function" and any(source in cones for source in node.all_input_nodes):
            parts = (part for source in node.all_input_nodes for part in cones.get(source, ()))
            cones[node] = [*dict.fromkeys(parts), node]
    for node, cone in cones.items():
        if (node.op != "call_function" and among is None) or of_weights.isdisjoint(node.users):
            continue
        buffers = [str(part.target) for part in cone if part.op == "get_attr"]
        readers = [user.name for user in node.users if user in of_weights or among is None]
        for place in [readers] if among is None else [[reader] for reader in readers]:
            if any(met.get(name) for name in buffers):
                found.append(_Meeting(node.name, tuple(part.name for part in cone), tuple(place)))
            for name in buffers:
                met[name] = met.get(name, 0) + 1
    return found


def _is_table(shape: object) -> bool:
    return isinstance(shape, TensorShape) and shape.dtype.is_floating_point and shape.numel > 1


def _copy_cone(graph: Graph, nodes: dict[str, Node], meeting: _Meeting, tensors: dict[str, Tensor]) -> None:
    """Copies of what makes a value, in front of whoever meets it first, and the copy in its place there."""
    made: dict[Node, Node] = {}
    value, readers = nodes[meeting.value], {nodes[name] for name in meeting.readers}
    with graph.inserting_before(value.next):
        for part in (nodes[name] for name in meeting.cone):
            made[part] = graph.node_copy(part, lambda source: made.get(source, source))
            if part.op == "get_attr":
                name = free_name(str(part.target), tensors)
                tensors[name] = tensors[str(part.target)].detach().clone()
                made[part].target = name
    value.replace_all_uses_with(made[value], delete_user_cb=lambda user: user in readers)
