"""A selection of input positions in front of one reader, so that this reader can lose what others still need.

It must never decide which positions go: that is what masks and the ordinary removal of units are for.
"""

from __future__ import annotations

import copy

import torch
from torch.fx import Node

from compressor.errors import UsageError
from compressor.program import families
from compressor.program.arguments import arguments, set_argument
from compressor.program.layers import FILTERED, Layer, find_layers
from compressor.program.module import ProgramModule
from compressor.program.program import Program

aten = torch.ops.aten


def insert_gather(program: Program, layer_name: str) -> Program:
    """The program with a selection of all input positions in front of one layer; it computes what it did, from the
    same tensors.

    The layer's input channels (features of a linear layer) become units of their own: the index of the selection is a
    buffer, `LAYER.selected`, which gets shorter with them, while what is selected from stays whole and is pinned. So
    unused pixels of a fully connected first layer can go, and channels of a residual stream that one reader ignores. A
    layer that already has a selection is returned as it is.

    Raises:  UsageError if no layer with weights to contract has that name.
    """
    layers = find_layers(program)
    found = [layer for layer in layers if layer.name == layer_name and layer.kind in FILTERED]
    if not found:
        known = ", ".join([layer.name for layer in layers if layer.kind in FILTERED][:6])
        raise UsageError(f"{layer_name}: no convolution or linear layer has that name; there are {known}")
    name = index_name(found[0])
    tensors = program.module.tensors()
    if name in tensors:
        return program
    graph = copy.deepcopy(program.module.graph)
    nodes = {node.name: node for node in graph.nodes}
    first = nodes[found[0].node]
    n_positions = input_size(program, first)
    with graph.inserting_before(next(iter(graph.nodes))):
        index = graph.create_node("get_attr", name)
    for layer in found:
        node = nodes[layer.node]
        set_argument(node, "input", select_in_front(node, arguments(node)["input"], input_dim(program, node), index))
    module = ProgramModule({**tensors, name: torch.arange(n_positions)}, graph)
    return program.replace(module=module)


def select_in_front(node: Node, source: Node, dim: int, index: Node) -> Node:
    """A new `index_select` of `source`, in front of `node` and at its place in the user's source."""
    with node.graph.inserting_before(node):
        made = node.graph.call_function(aten.index_select.default, (source, dim, index))
    made.meta = {"where": node.meta.get("where", "")}
    return made


def index_name(layer: Layer) -> str:
    """The buffer that holds a layer's selection; a layer without a module of its own has no place below it."""
    return f"{layer.name}_selected" if layer.name == layer.weight else f"{layer.name}.selected"


def input_dim(program: Program, node: Node) -> int:
    """The dimension of a contraction's input that its weights sum over."""
    rank = len(_sizes(program, node, "input"))
    if node.target in families.LINEAR:
        return rank - 1
    weight_rank = len(_sizes(program, node, "weight"))
    return rank - (weight_rank - 1)


def input_size(program: Program, node: Node) -> int:
    """How many input positions (channels, features) a contraction has."""
    return _sizes(program, node, "input")[input_dim(program, node)]


def _sizes(program: Program, node: Node, argument: str) -> tuple[int, ...]:
    given = arguments(node)[argument]
    shape = program.shapes[given.name]
    return getattr(shape, "sizes", ())
