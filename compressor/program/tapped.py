"""A network that also returns what it computes on the way; it must never change the graph that it is given.

For two networks of one graph, which are compared at more places than their outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from torch.fx import Node

from compressor.program import families
from compressor.program.layers import CONTRACTIONS, find_layers
from compressor.program.module import ProgramModule
from compressor.program.program import Program
from compressor.program.shapes import TensorShape


def is_same_graph(one: ProgramModule, other: ProgramModule) -> bool:
    """Whether both have the same operators under the same names, on tensors of the same shapes."""
    nodes: list[list[tuple[str, Any]]] = []
    shapes: list[dict[str, tuple[int, ...]]] = []
    for module in (one, other):
        nodes.append([(node.name, node.target) for node in module.graph.nodes])
        shapes.append({name: tuple(tensor.shape) for name, tensor in module.tensors().items()})
    return nodes[0] == nodes[1] and shapes[0] == shapes[1]


def landmarks(program: Program) -> tuple[str, ...]:
    """Names of the nodes by which to see how far a network has come: its residual sums.

    Without such, the outputs of its layers but those that it returns. Both stand before the activation, so 0 there is
    what is cut and hardly ever anything else.
    """
    graph, shapes = program.module.graph, program.shapes
    layers = {layer.node for layer in find_layers(program) if layer.kind in CONTRACTIONS}
    computed: set[Node] = set()
    for node in graph.nodes:
        if node.name in layers or not computed.isdisjoint(node.all_input_nodes):
            computed.add(node)

    def joins(node: Node) -> bool:
        operands = [one for one in node.args[:2] if isinstance(one, Node) and one in computed]
        sizes = [shapes.get(one.name) for one in operands]
        return len(operands) == 2 and isinstance(sizes[0], TensorShape) and sizes[0] == sizes[1]

    sums = tuple(node.name for node in graph.nodes if node.target in families.ADD and joins(node))
    returned = {node for end in graph.find_nodes(op="output") for node in end.all_input_nodes}
    return sums or tuple(node.name for node in graph.nodes if node.name in layers and node not in returned)


def tapped(module: ProgramModule, names: Collection[str]) -> ProgramModule:
    """The same network on the same tensors; it returns (what it returns, the values of the nodes of these names)."""
    graph = copy.deepcopy(module.graph)
    by_name = {node.name: node for node in graph.nodes}
    (end,) = graph.find_nodes(op="output")
    end.args = ((end.args[0], tuple(by_name[name] for name in names)),)
    both = ProgramModule(module.tensors(), graph)
    both.training = module.training
    return both
