"""`analyze --explain LAYER`: everything that leaves with one filter, and through which operators; it changes nothing."""

from __future__ import annotations

from collections import deque

import numpy as np

from compressor.analysis.result import CoupledSlice, Explanation
from compressor.axes import Ids, UnitMap, find_units
from compressor.errors import UsageError
from compressor.program import Layer, Program, find_layers
from compressor.units import Params


def explain(program: Program, layer: str, index: int | None = None) -> Explanation:
    """What goes when filter `index` of `layer` goes (default: its first filter that may go).

    Raises:  UsageError if there is no such layer or filter; the nearest names are given.
    """
    found = _find(program, layer)
    units = find_units(program)
    ids = units.walk.axes[found.weight, found.out_dim]
    of_index = units.axes[found.weight, found.out_dim]
    if index is None:
        index = int(np.argmax(of_index >= 0))
    if not 0 <= index < len(ids):
        raise UsageError(f"{layer}: has filters 0 to {len(ids) - 1}, not {index}")
    component = units.walk.components.component
    slices = _slices(program, units, int(component[ids[index]]))
    pin = units.pin_at.get((found.weight, found.out_dim)) if of_index[index] < 0 else None
    return Explanation(
        found.name, index, slices, _count(program, slices), pin.reason if pin else None, _chain(program, units, ids[index])
    )


def _find(program: Program, name: str) -> Layer:
    import difflib

    layers = {layer.name: layer for layer in find_layers(program)}
    if name not in layers:
        near = difflib.get_close_matches(name, layers, n=3, cutoff=0.4) or list(layers)[:3]
        raise UsageError(f"--explain {name}: no such layer; did you mean {', '.join(near)}?")
    return layers[name]


def _slices(program: Program, units: UnitMap, component: int) -> tuple[CoupledSlice, ...]:
    resolved = units.walk.components.component
    parameters = program.parameters
    found = []
    for (name, axis), ids in units.walk.axes.items():
        positions = np.flatnonzero(resolved[ids] == component)
        if name in parameters and len(positions):
            found.append(CoupledSlice(name, axis, tuple(int(i) for i in positions)))
    return tuple(found)


def _count(program: Program, slices: tuple[CoupledSlice, ...]) -> Params:
    """Elements in the union of the slices: two axes of one tensor overlap."""
    total = 0
    for name in {piece.parameter for piece in slices}:
        shape = program.parameters[name].shape
        stays = 1
        for dim, size in enumerate(shape):
            gone = sum(len(piece.positions) for piece in slices if piece.parameter == name and piece.axis == dim)
            stays *= size - gone
        total += program.parameters[name].numel() - stays
    return Params(total)


def _chain(program: Program, units: UnitMap, start: int) -> tuple[str, ...]:
    """Operators that unite the filter with the rest, nearest first, with the user's source lines."""
    nodes = {node.name: node for node in program.module.graph.nodes}
    neighbours: dict[int, list[tuple[int, str]]] = {}
    wanted = units.walk.components.component[start]
    for edge in units.walk.components.edges:
        mine = units.walk.components.component[edge.a] == wanted
        for a, b in zip(_list(edge.a[mine]), _list(edge.b[mine]), strict=True):
            neighbours.setdefault(a, []).append((b, edge.node))
            neighbours.setdefault(b, []).append((a, edge.node))
    seen, order, queue = {int(start)}, dict[str, None](), deque([int(start)])
    while queue:
        for other, node in neighbours.get(queue.popleft(), ()):
            order.setdefault(node)
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return tuple(f"{nodes[name].target} {name}: {nodes[name].meta.get('where') or ''}".rstrip(": ") for name in order)


def _list(ids: Ids) -> list[int]:
    return [int(i) for i in ids]
