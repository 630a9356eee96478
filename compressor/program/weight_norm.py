"""Weight norm folded into the weight that it makes; it must never fold what depends on an input.

`torch.nn.utils.weight_norm`, old or as a parametrization, gives a row its direction and its length by two parameters. A
row that is cut has no direction to divide by, so a mask could not say what a compact network would compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from compressor.program import families
from compressor.program.arguments import arguments
from compressor.program.module import of_same_kind
from compressor.program.naming import free_name

_torch: Any = torch  # its stubs do not know the function that the layers themselves call

_DIRECTIONS = (".parametrizations.weight.original1", ".weight_v")


@torch.no_grad()
def fold_weight_norms(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors with a weight in place of each direction and length, and the new names; edits the graph in place."""
    found, made = dict(tensors), dict[tuple[str, str, int], str]()
    for node in list(graph.nodes):
        if node.target not in families.WEIGHT_NORM:
            continue
        bound = arguments(node)
        parts: list[Node] = [bound["v"], bound["g"]]
        if any(part.op != "get_attr" for part in parts):
            continue
        first, second = (str(part.target) for part in parts)
        key = (first, second, bound["dim"])
        if key not in made:  # a layer that is called twice has one weight
            made[key] = free_name(_plain_name(first), found)
            weight: Tensor = _torch._weight_norm(found[first], found[second], bound["dim"])
            found[made[key]] = of_same_kind(weight, found[first])
        with graph.inserting_before(node):
            read = graph.get_attr(made[key])
        read.meta = dict(node.meta)
        node.replace_all_uses_with(read)
        for gone in (node, *dict.fromkeys(parts)):
            if not gone.users:
                graph.erase_node(gone)
    named = {node.target for node in graph.nodes if node.op == "get_attr"}
    parted = {name for first, second, _ in made for name in (first, second)} - named
    return {name: tensor for name, tensor in found.items() if name not in parted}, list(made.values())


def _plain_name(direction: str) -> str:
    """`conv.weight` for either way of `torch.nn.utils`."""
    ending = next((ending for ending in _DIRECTIONS if direction.endswith(ending)), None)
    return f"{direction}_normed" if ending is None else f"{direction.removesuffix(ending)}.weight"
