"""What each layer costs and what its masks leave of that; it must never hold units or why something is cut."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.cost import macs_of_layers
from compressor.program import Program, find_layers
from compressor.units import Macs, Params


@dataclass(frozen=True)
class LayerCost:
    """Parameters and MACs of one layer, and what is left of both once everything masked has gone."""

    name: str
    weight_shape: tuple[int, ...]
    params: Params
    macs: Macs
    kept_params: Params
    kept_macs: Macs


def layer_costs(program: Program) -> tuple[LayerCost, ...]:
    """The layers in graph order, those that share a weight each with its own MACs and the parameters once.

    Kept MACs go with the kept share of the weight, which is exact where whole filters and channels went.
    """
    macs = macs_of_layers(program)
    parameters = program.parameters
    rows: list[LayerCost] = []
    counted: set[str] = set()
    for layer in find_layers(program):
        owned = [name for name in layer.tensors if name in parameters and name not in counted]
        counted.update(owned)
        params = sum(parameters[name].numel() for name in owned)
        cut = sum(int((~program.masks[name]).sum()) for name in owned if name in program.masks)
        mask = program.masks.get(layer.weight)
        share = int(mask.sum()) / mask.numel() if mask is not None and mask.numel() else 1.0
        n_macs = macs.get(layer.node, Macs(0))
        shape = tuple(program.module.tensors()[layer.weight].shape)
        rows.append(
            LayerCost(layer.name, shape, Params(params), n_macs, Params(params - cut), Macs(round(n_macs * share)))
        )
    return tuple(rows)
