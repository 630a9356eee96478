"""Inputs of a fully connected first layer made removable; it must never decide which of them go."""

from __future__ import annotations

from torch.fx import Node

from compressor.errors import UsageError
from compressor.program import Layer, Program, find_layers, insert_gather


def select_inputs(program: Program) -> Program:
    """The program with a selection of positions in front of every linear layer that reads the network's input.

    Their input positions (pixels) become units like filters: a pattern of whole units can cut them, and `compact` then
    removes columns of the layer and shortens the selection. It computes what it did.

    Raises:  UsageError if no linear layer reads the input without another layer between.
    Source:  Dai et al. 2018, "Compressing Neural Networks using the Variational Information Bottleneck", sec. 5.1
             (LeNet-300-100 as 97-71-33: 97 of 784 pixels).
    """
    names = [layer.name for layer in find_layers(program) if layer.kind == "linear" and _is_first(program, layer)]
    if not names:
        raise UsageError(
            "--select-inputs: no fully connected layer reads the network's input directly; leave the option out"
        )
    for name in names:
        program = insert_gather(program, name)
    return program


def _is_first(program: Program, layer: Layer) -> bool:
    """Whether nothing but data movement lies between the network's input and the layer."""
    parameters = set(program.parameters)
    nodes = {node.name: node for node in program.module.graph.nodes}
    waiting: list[Node] = [nodes[layer.node].all_input_nodes[0]]
    reached = False
    while waiting:
        node = waiting.pop()
        if node.op == "get_attr" and str(node.target) in parameters:
            return False
        reached |= node.op == "placeholder"
        waiting.extend(node.all_input_nodes)
    return reached
