"""What each layer costs and what its masks leave of that; it must never hold units or why something is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import Node

from compressor.cost import macs_of_layers
from compressor.program import Layer, Program, find_layers
from compressor.units import Macs, Params


@dataclass(frozen=True)
class LayerCost:
    """Parameters and MACs of one layer, and what is left of both once everything masked has gone.

    `of` is the layer whose output this one, a norm, reads at once: the two are one to whoever looks at widths.
    `filters` are (dense, kept) ones of a layer that contracts, None of any other.
    """

    name: str
    weight_shape: tuple[int, ...]
    params: Params
    macs: Macs
    kept_params: Params
    kept_macs: Macs
    of: str = ""
    filters: tuple[int, int] | None = None


def layer_costs(program: Program) -> tuple[LayerCost, ...]:
    """The layers in graph order, those that share a weight each with its own MACs and the parameters once.

    Kept MACs go with the kept share of the weight, which is exact where whole filters and channels went.
    """
    macs = macs_of_layers(program)
    parameters = program.parameters
    rows: list[LayerCost] = []
    counted: set[str] = set()
    layers = find_layers(program)
    by_node = {layer.node: layer for layer in layers if layer.multiplies}
    nodes = {node.name: node for node in program.module.graph.nodes}
    for layer in layers:
        owned = [name for name in layer.tensors if name in parameters and name not in counted]
        counted.update(owned)
        params = sum(parameters[name].numel() for name in owned)
        cut = sum(int((~program.masks[name]).sum()) for name in owned if name in program.masks)
        mask = program.masks.get(layer.weight)
        share = int(mask.sum()) / mask.numel() if mask is not None and mask.numel() else 1.0
        n_macs = macs.get(layer.node, Macs(0))
        shape = tuple(program.module.tensors()[layer.weight].shape)
        rows.append(
            LayerCost(
                layer.name, shape, Params(params), n_macs, Params(params - cut), Macs(round(n_macs * share)),
                _normalised(layer, nodes, by_node), _filters(program, layer),
            )
        )  # fmt: skip
    return tuple(rows)


def _normalised(layer: Layer, nodes: Mapping[str, Node], by_node: Mapping[str, Layer]) -> str:
    """The contraction whose output a layer without channels of its own reads; empty where it reads another value."""
    if layer.multiplies or layer.node not in nodes:
        return ""
    read = nodes[layer.node].all_input_nodes
    source = by_node.get(read[0].name) if read else None
    return source.name if source is not None else ""


def _filters(program: Program, layer: Layer) -> tuple[int, int] | None:
    if not layer.multiplies:
        return None
    n_dense = program.module.tensors()[layer.weight].shape[layer.out_dim]
    mask = program.masks.get(layer.weight)
    if mask is None:
        return n_dense, n_dense
    return n_dense, int(mask.any(dim=[d for d in range(mask.dim()) if d != layer.out_dim]).sum())
