"""`analyze`: what a network consists of and what of it could be removed; it must never change anything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from compressor.analysis.blocks import block_rows
from compressor.analysis.experts import router_rows
from compressor.analysis.findings import Analysis, LayerRow, PinRow, UnitGroup
from compressor.asking import WalkOptions
from compressor.axes import Keep, UnitMap, find_units
from compressor.cost import count_activations, count_macs, macs_of_layers, uncounted_operators
from compressor.data import DataSource, Task, in_batches_of
from compressor.program import Layer, Program, TensorShape, find_layers, layer_name, open_heads, own_positions
from compressor.sparsity import free_units
from compressor.training import evaluate_where_possible
from compressor.units import Macs, Params, format_dtype

_STRUCTURAL = ("kernel window", "the only index")
"""Pins of positions that no pattern would remove; they are no news to anyone."""


def analyze(
    program: Program,
    *,
    data: DataSource | None = None,
    task: Task | None = None,
    device: str = "cpu",
    options: WalkOptions | None = None,
) -> Analysis:
    """Layers, costs, coupled units, and what is pinned and why; accuracy if data is given.

    `options` say how units are found; default: as they were when the program was pruned.

    Raises:  ModelError if the graph does not fit its tensors, or weights that masks cut are not 0; DataError if the
             data does not fit the network.
    """
    began = time.perf_counter()
    program.check_masks()
    data = in_batches_of(data, program.fixed_batch)
    walk = options or WalkOptions.from_mapping(program.record.walk)
    program = open_heads(program) if walk.keep_heads else own_positions(program)
    units = find_units(program, walk)
    layers = find_layers(program)
    owners = _owners(layers)
    every = {layer.name for layer in layers}
    may_go = free_units(units, layers, every, set()) & ~units.experts
    free = np.append(may_go, False)  # a pinned index reads the last entry
    macs = macs_of_layers(program)
    metrics = evaluate_where_possible(program.module, data, task, device=device)
    return Analysis(
        n_params=Params(program.n_parameters),
        n_zeroed=program.n_zeroed,
        macs=count_macs(program),
        n_activations=count_activations(program),
        n_units=units.n_units,
        prunable_params=Params(_prunable(program, units, free)),
        layers=tuple(_row(program, units, layer, macs, free) for layer in layers),
        groups=_groups(program, units, owners),
        pins=_pins(program, units, owners),
        unknown_operators=tuple(f"{name} ({n}x)" if n > 1 else name for name, n in units.walk.unknown.items()),
        notes=program.record.notes,
        metrics=metrics,
        seconds=time.perf_counter() - began,
        uncounted_operators=uncounted_operators(program),
        blocks=block_rows(program),
        routers=router_rows(program, walk),
        n_bytes=sum(p.nbytes for p in program.module.parameters()),
        stored_as=", ".join(sorted({format_dtype(p.dtype) for p in program.module.parameters()})),
    )


def _prunable(program: Program, units: UnitMap, free: Keep) -> int:
    """Parameters that lie in at least one unit that may go. Shapes: free (n_units + 1,)"""
    total = 0
    for name, parameter in program.module.named_parameters():
        stay = [int((~free[units.axes[name, dim]]).sum()) for dim in range(parameter.dim())]
        total += parameter.numel() - int(np.prod(stay, dtype=np.int64))
    return total


def _row(program: Program, units: UnitMap, layer: Layer, macs: dict[str, Macs], free: Keep) -> LayerRow:
    parameters = program.parameters
    owned = [name for name in layer.tensors if name in parameters]
    dim = _filter_dim(units, layer, free)
    of_index = units.axes.get((layer.weight, dim))
    n_prunable = 0 if of_index is None else int(free[of_index].sum())
    pin = units.pin_at.get((layer.weight, dim))
    n_zeroed = sum(int((~program.masks[name]).sum()) for name in owned if name in program.masks)
    shape = program.shapes.get(layer.node)
    sizes = shape.sizes if isinstance(shape, TensorShape) else ()
    weight = program.module.tensors()[layer.weight]
    return LayerRow(
        name=layer.name,
        kind=layer.kind,
        weight_shape=tuple(weight.shape),
        output_shape=(None, *sizes[1:]) if program.has_dynamic_batch else sizes,
        params=Params(sum(parameters[name].numel() for name in owned)),
        macs=macs.get(layer.node, Macs(0)),
        n_zeroed=n_zeroed,
        n_filters=weight.shape[dim] if weight.dim() else 1,
        n_prunable=n_prunable,
        pinned=pin.reason if pin is not None else None,
    )


def _filter_dim(units: UnitMap, layer: Layer, free: Keep) -> int:
    """The axis that a row counts: the filters', but of a bare parameter the one that most may go from, because nothing
    says which that is (the weights of all experts in one tensor). Shapes: free (n_units + 1,)"""
    if layer.kind != "parameter":
        return layer.out_dim
    counts = {dim: int(free[of_index].sum()) for (name, dim), of_index in units.axes.items() if name == layer.weight}
    return max(counts, key=lambda dim: (counts[dim], dim == layer.out_dim), default=layer.out_dim)


def _owners(layers: Sequence[Layer]) -> dict[str, str]:
    """The layer that a tensor belongs to, by the tensor's name: a recurrent one has several matrices."""
    return {
        name: layer_name(name) if layer.kind == "parameter" else layer.name
        for layer in reversed(layers)
        for name in layer.tensors
    }  # fmt: skip


def _groups(program: Program, units: UnitMap, owners: Mapping[str, str]) -> tuple[UnitGroup, ...]:
    """Widths of the network: units on the same axes, the largest saving first."""
    parameters = program.parameters
    groups: list[UnitGroup] = []
    for members in units.groups:
        axes = [(name, dim) for name, dim in units.slices[members[0]] if name in parameters]
        size = sum(
            int(np.isin(units.axes[name, dim], members).sum()) * parameters[name].numel() // parameters[name].shape[dim]
            for name, dim in axes
        )
        layers = tuple(dict.fromkeys(owners[name] for name, _ in axes))
        groups.append(UnitGroup(len(members), size / len(members), layers))
    return tuple(sorted(groups, key=lambda group: -group.n_units * group.params_per_unit))


def _pins(program: Program, units: UnitMap, owners: Mapping[str, str]) -> tuple[PinRow, ...]:
    """Pinned indices of weight axes by place and reason, the most first."""
    where = {node.name: node.meta.get("where") or node.name for node in program.module.graph.nodes}
    counted: Counter[tuple[str, str]] = Counter()
    parameters = program.parameters
    for (name, dim), pin in units.pin_at.items():
        if name in parameters and pin.reason not in _STRUCTURAL:
            place = f"{owners[name]} at {where.get(pin.node, pin.node)}"
            counted[place, pin.reason] += int((units.axes[name, dim] < 0).sum())
    return tuple(PinRow(place, reason, n) for (place, reason), n in counted.most_common())
