"""Measured time as a budget: a table per layer over kept filters and channels, summed; it must never take time itself.

The stopwatch comes from whoever asks. What a table holds is the operator alone, with its input and output in the plain
layout; additions, poolings and activations between the layers are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from compressor.axes import Ids, Keep, UnitMap
from compressor.cost import LatencyTable, Stopwatch, width_grid
from compressor.cost.terms import dense_cost, mac_terms
from compressor.program import FILTERED, Excerpt, Layer, Program, TensorShape, find_layers, measured_arguments

BLOCK = 16
"""Widths are measured at multiples of this: the block of the CPU's kernels (8 or 16), which a width in between fills
up."""

_N_POINTS = 6


@dataclass(frozen=True)
class LayerTime:
    """The time of one operator as a function of which units stay on its weight's filter and channel axes."""

    node: str
    filters: Ids
    channels: Ids
    table: LatencyTable


@dataclass(frozen=True)
class LatencyBudget:
    """Cost as a function of which units stay, in seconds; it answers what `Budget` answers."""

    units: UnitMap
    layers: tuple[LayerTime, ...]

    def cost(self, keep: Keep) -> float:
        """Seconds of all layers. Shapes: keep (n_units,)"""
        kept = np.append(keep, True)
        return float(sum(x.table.at(kept[x.filters].sum(), kept[x.channels].sum()) for x in self.layers))

    @property
    def dense(self) -> float:
        return self.cost(np.ones(self.units.n_units, dtype=bool))

    @staticmethod
    def measured(
        program: Program, units: UnitMap, stopwatch: Stopwatch, layers: Iterable[str] | None = None, batch: int = 1
    ) -> LatencyBudget:
        """Tables of the named layers (default: all), measured where the stopwatch does not know them."""
        names = None if layers is None else set(layers)
        nodes = {node.name: node for node in program.module.graph.nodes}
        found: list[LayerTime] = []
        for layer in find_layers(program):
            if layer.kind in FILTERED and (names is None or layer.name in names) and layer.in_dim is not None:
                table = measure_layer(program, layer, nodes[layer.node], stopwatch, batch)
                filters, channels = (units.axes[layer.weight, dim] for dim in (layer.out_dim, layer.in_dim))
                found.append(LayerTime(layer.node, filters, channels, table))
        return LatencyBudget(units, tuple(found))


def untimed(program: Program) -> tuple[str, ...]:
    """What to tell about operators that multiply without a weight of their own: no table of widths holds their time."""
    owners = {layer.node for layer in find_layers(program) if layer.kind in FILTERED}
    costs = [(term.owner, dense_cost(program, term)) for term in mac_terms(program)]
    left_out = {owner for owner, _ in costs if owner not in owners}
    if not left_out:
        return ()
    share = sum(cost for owner, cost in costs if owner in left_out) / max(sum(cost for _, cost in costs), 1)
    targets = {str(node.target).split(".")[1] for node in program.module.graph.nodes if node.name in left_out}
    told = f"{', '.join(sorted(targets))}, which are not timed alone, are in no table of widths"
    return (f"latency leaves out {100 * share:.1f} % of the MACs: {told}",)


def measure_layer(program: Program, layer: Layer, node: Node, stopwatch: Stopwatch, batch: int = 1) -> LatencyTable:
    """Seconds of one layer over a grid of widths of its weight's filter and channel axes."""
    weight = program.module.tensors()[layer.weight]
    assert layer.in_dim is not None
    groups = measured_arguments(node, program.shapes).get("groups", 1)
    shared = 1 if weight.shape[layer.in_dim] == 1 or layer.kind.startswith("conv_transpose") else groups
    filters = width_grid(weight.shape[layer.out_dim], BLOCK * shared, _N_POINTS)  # a block in every group
    channels = width_grid(weight.shape[layer.in_dim], BLOCK, _N_POINTS)
    rows: list[tuple[float, ...]] = []
    for n_filters in filters:  # row by row: all weights of a large layer's grid at once would not fit
        trials = [layer_trial(program, layer, node, n_filters, n_channels) for n_channels in channels]
        rows.append(stopwatch.seconds(trials, batch))
    return LatencyTable(filters, channels, np.array(rows))


def layer_trial(program: Program, layer: Layer, node: Node, n_filters: int, n_channels: int) -> Program:
    """One operator with a weight of that many filters and channels (along the weight's own axes), and its input."""
    bound, own = measured_arguments(node, program.shapes), program.module.tensors()
    assert layer.in_dim is not None
    weight_sizes = list(own[layer.weight].shape)
    dense_channels = weight_sizes[layer.in_dim]
    weight_sizes[layer.out_dim], weight_sizes[layer.in_dim] = n_filters, n_channels
    source = program.shapes[bound["input"].name]
    assert isinstance(source, TensorShape)
    sizes = list(source.sizes[1:])
    dim = len(sizes) - 1 if layer.kind == "linear" else 0
    groups = bound.get("groups", 1)
    if groups > 1 and layer.kind.startswith("conv_transpose") and dense_channels == groups:
        groups = sizes[dim] = n_channels
    elif groups > 1 and dense_channels == 1:  # depthwise: one group per channel, so the groups go with the filters
        groups = max(1, round(n_filters * groups / own[layer.weight].shape[layer.out_dim]))
        sizes[dim] = groups
    else:
        sizes[dim] = n_channels * (groups if not layer.kind.startswith("conv_transpose") else 1)
    trial = Excerpt((None, *sizes))
    weight = trial.tensor("layer.weight", torch.full(weight_sizes, 0.01))
    changed: dict[str, Any] = {"input": trial.input, "weight": weight}
    if isinstance(bound.get("bias"), Node):
        n_out = n_filters * (groups if layer.kind.startswith("conv_transpose") else 1)
        changed["bias"] = trial.tensor("layer.bias", torch.zeros(n_out))
    if "groups" in bound:
        changed["groups"] = groups
    return trial.program(trial.call(node.target, **{**bound, **changed}))
