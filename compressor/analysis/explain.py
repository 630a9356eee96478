"""`analyze --explain LAYER`: what leaves with one filter, and through which operators; it must never change a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from compressor.analysis.findings import CoupledSlice, Explanation
from compressor.asking import WalkOptions
from compressor.axes import Pin, UnitMap, find_units
from compressor.errors import UsageError
from compressor.nearest import did_you_mean
from compressor.program import Layer, Program, find_layers
from compressor.units import Params


def explain(
    program: Program, layer: str, index: int | None = None, *, options: WalkOptions | None = None
) -> Explanation:
    """What goes when filter `index` of `layer` goes (default: its first filter that may go), or why it may not.

    `options` say how units are found; default: as they were when the program was pruned.

    Raises:  UsageError if there is no such layer or filter; the nearest names are given.
    """
    found = _find(program, layer)
    units = find_units(program, options or WalkOptions.from_mapping(program.record.walk))
    ids = units.walk.axes[found.weight, found.out_dim]
    of_index = units.axes[found.weight, found.out_dim]
    if index is None:
        index = int(np.argmax(of_index >= 0))
    if not 0 <= index < len(ids):
        raise UsageError(f"{layer}: has filters 0 to {len(ids) - 1}, not {index}")
    names = _Names(program)
    slices = _slices(program, units, int(units.walk.components.component[ids[index]]))
    pin, nodes = _coupling(units, int(ids[index]))
    return Explanation(
        layer=found.name,
        index=index,
        slices=slices,
        params=_count(program, slices),
        pinned=pin.reason if pin is not None else None,
        chain=tuple(names.of(node) for node in nodes),
        pinned_at=names.of(pin.node) if pin is not None else None,
    )


class _Names:
    """How operators are called for the user: by their layer, with the line of source they come from."""

    def __init__(self, program: Program) -> None:
        self._nodes = {node.name: node for node in program.module.graph.nodes}
        self._layers = {layer.node: layer.name for layer in find_layers(program)}

    def of(self, name: str) -> str:
        node = self._nodes[name]
        what = f"{node.target} {self._layers.get(name, name)}" if node.op == "call_function" else name
        return f"{what}: {node.meta.get('where') or ''}".rstrip(": ")


def _find(program: Program, name: str) -> Layer:
    layers = {layer.name: layer for layer in find_layers(program)}
    if name not in layers:
        hint = did_you_mean(name, layers, cutoff=0.4) or f"it has {', '.join(list(layers)[:3])} …"
        raise UsageError(f"--explain {name}: no such layer; {hint}")
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


def _coupling(units: UnitMap, start: int) -> tuple[Pin | None, tuple[str, ...]]:
    """Nodes that tie the filter to the rest of its unit, nearest first; for a pinned one the nearest pin and the nodes
    on the way to it."""
    pins = _pins_near(units, start)
    neighbours = _neighbours(units, start)
    came: dict[int, tuple[int, str]] = {}
    order: dict[str, None] = {}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        if here in pins:
            return pins[here], _way(came, start, here)
        for other, node in neighbours.get(here, ()):
            order.setdefault(node)
            if other not in came and other != start:
                came[other] = (here, node)
                queue.append(other)
    return None, tuple(order)


def _way(came: Mapping[int, tuple[int, str]], start: int, end: int) -> tuple[str, ...]:
    nodes: list[str] = []
    while end != start:
        end, node = came[end]
        nodes.append(node)
    return tuple(dict.fromkeys(reversed(nodes)))


def _pins_near(units: UnitMap, start: int) -> dict[int, Pin]:
    """The first pin of each pinned id in the component of `start`."""
    resolved = units.walk.components
    found: dict[int, Pin] = {}
    for ids, pin in zip(resolved.pinned, resolved.pins, strict=True):
        for i in ids[resolved.component[ids] == resolved.component[start]]:
            found.setdefault(int(i), pin)
    return found


def _neighbours(units: UnitMap, start: int) -> dict[int, list[tuple[int, str]]]:
    """Edges of the component of `start`, by both ends."""
    resolved = units.walk.components
    found: dict[int, list[tuple[int, str]]] = {}
    for edge in resolved.edges:
        mine = resolved.component[edge.a] == resolved.component[start]
        for a, b in zip(edge.a[mine].tolist(), edge.b[mine].tolist(), strict=True):
            found.setdefault(a, []).append((b, edge.node))
            found.setdefault(b, []).append((a, edge.node))
    return found
