"""The routers of a network as rows: what goes with an expert, or why experts stay; it must never remove any."""

from __future__ import annotations

import numpy as np

from compressor.analysis.findings import RouterRow
from compressor.asking import WalkOptions
from compressor.axes import UnitMap, find_units
from compressor.program import Program, Router, find_layers, find_routers, layer_name, open_choices
from compressor.sparsity import free_units
from compressor.units import Params


def router_rows(program: Program, walk: WalkOptions) -> tuple[RouterRow, ...]:
    """Those of the program, in graph order, as `--pattern expert` finds them."""
    routers = find_routers(program)
    if not routers:
        return ()
    opened = open_choices(program)
    units = find_units(opened, walk)
    layers = find_layers(opened)
    free = free_units(units, layers, {layer.name for layer in layers}, set()) & units.experts
    return tuple(_row(opened, units, router, np.append(free, False)) for router in routers)


def _row(opened: Program, units: UnitMap, router: Router, free: np.ndarray) -> RouterRow:
    """Shapes: free (n_units + 1,)"""
    of_index = units.axes[router.weight, 0]
    n_free = int(free[of_index].sum())
    if not n_free:
        return RouterRow(router.name, router.n_experts, router.n_chosen, 0, Params(0), (), _why(opened, units, router))
    parameters = opened.parameters
    axes = [axis for axis in units.slices[int(of_index[free[of_index]][0])] if axis[0] in parameters]
    size = sum(parameters[name].numel() // parameters[name].shape[dim] for name, dim in axes)
    holders = tuple(dict.fromkeys(layer_name(name) for name, _ in axes))
    n_may_go = min(n_free, router.n_experts - router.n_chosen)
    return RouterRow(router.name, router.n_experts, router.n_chosen, n_may_go, Params(size), holders)


def _why(opened: Program, units: UnitMap, router: Router) -> str:
    pin = units.pin_at.get((router.weight, 0))
    rows = (opened.parameters[router.weight].detach() != 0).any(1)
    if not bool(rows.all()) and router.weight not in opened.masks:
        return f"row {int((~rows).nonzero()[0])} of the router is 0 already: a cut could not be told from it"
    return pin.reason if pin is not None else "as many are chosen as there are"
