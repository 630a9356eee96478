"""Values that are made of positions alone, a copy for each of their readers, so that layers that share them need not
lose the same; it must never change what is computed.

The angles of rotary embeddings are computed once, and every layer multiplies its queries and keys by them: a feature
that goes from one layer would go from all.
"""

from __future__ import annotations

import copy

from torch import Tensor
from torch.fx import Graph, Node

from compressor.program.module import ProgramModule
from compressor.program.naming import free_name
from compressor.program.program import Program
from compressor.program.shapes import TensorShape
from compressor.program.unread import erase_unread


def own_positions(program: Program) -> Program:
    """The program with its own copy of a buffer, and of what is computed from it, for each place where weights or what
    they made meet that. A program in which there is one such place at most comes back as it is.
    """
    shared = _shared(program)
    if not shared:
        return program
    graph = copy.deepcopy(program.module.graph)
    nodes = {node.name: node for node in graph.nodes}
    tensors = program.module.tensors()
    for meeting, cone in shared:
        _copy_cone(graph, nodes, [nodes[name] for name in cone], nodes[meeting], tensors)
    erase_unread(graph)
    graph.lint()
    return program.replace(module=_module(program, tensors, graph))


def _module(program: Program, tensors: dict[str, Tensor], graph: Graph) -> ProgramModule:
    named = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    module = ProgramModule({name: tensor for name, tensor in tensors.items() if name in named}, graph)
    module.training = program.module.training
    return module


def _shared(program: Program) -> list[tuple[str, list[str]]]:
    """Every such place but the first of a buffer, as the value that is met, with what makes it of the buffer."""
    parameters = program.parameters
    of_weights: set[Node] = set()
    cones: dict[Node, list[Node]] = {}
    met: dict[str, int] = {}
    found: list[tuple[str, list[str]]] = []
    for node in program.module.graph.nodes:
        if (node.op == "get_attr" and str(node.target) in parameters) or not of_weights.isdisjoint(
            node.all_input_nodes
        ):
            of_weights.add(node)
        elif node.op == "get_attr" and _is_table(program.shapes.get(node.name)):
            cones[node] = [node]
        elif node.op == "call_function" and any(source in cones for source in node.all_input_nodes):
            parts = (part for source in node.all_input_nodes for part in cones.get(source, ()))
            cones[node] = [*dict.fromkeys(parts), node]
    for node, cone in cones.items():
        if node.op != "call_function" or of_weights.isdisjoint(node.users):
            continue
        buffers = [str(part.target) for part in cone if part.op == "get_attr"]
        if any(met.get(name) for name in buffers):
            found.append((node.name, [part.name for part in cone]))
        for name in buffers:
            met[name] = met.get(name, 0) + 1
    return found


def _is_table(shape: object) -> bool:
    return isinstance(shape, TensorShape) and shape.dtype.is_floating_point and shape.numel > 1


def _copy_cone(
    graph: Graph, nodes: dict[str, Node], cone: list[Node], meeting: Node, tensors: dict[str, Tensor]
) -> None:
    """Copies of what makes a value, in front of it, and the copy in its place."""
    made: dict[Node, Node] = {}
    with graph.inserting_before(meeting):
        for part in cone:
            made[part] = graph.node_copy(part, lambda source: made.get(source, source))
            if part.op == "get_attr":
                name = free_name(str(part.target), tensors)
                tensors[name] = tensors[str(part.target)].detach().clone()
                made[part].target = name
    meeting.replace_all_uses_with(made[meeting], delete_user_cb=lambda user: user not in made.values())
