"""The unit map: which slices of which tensors go together, and what may not go; it must never hold weights or masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from compressor.asking import WalkOptions
from compressor.axes.ids import Ids, Pin
from compressor.axes.labels import Value
from compressor.axes.walk import Walk, walk
from compressor.program import Program

Keep: TypeAlias = NDArray[np.bool_]
"""One bool per unit, True = keep."""


@dataclass(frozen=True)
class UnitMap:
    """Units counted from 0. `axes` maps (tensor, dimension) to one unit per index, -1 where the index is pinned.

    Only units that touch a parameter count; `pin_at` says why the indices of an axis are pinned, where some are.
    """

    n_units: int
    axes: Mapping[tuple[str, int], Ids]
    pin_at: Mapping[tuple[str, int], Pin]
    walk: Walk
    unit_of_component: Ids

    @cached_property
    def heads(self) -> Keep:
        """Which units are whole attention heads; none unless the walk kept them. Shapes: -> (n_units,)"""
        found = np.zeros(self.n_units + 1, dtype=bool)
        found[self.of_ids(self.walk.heads)] = True
        return found[:-1]

    @cached_property
    def experts(self) -> Keep:
        """Which units are whole experts, among which a router chooses. Shapes: -> (n_units,)"""
        found = np.zeros(self.n_units + 1, dtype=bool)
        for of_index, _ in self.choices:
            found[of_index] = True
        return found[:-1]

    @cached_property
    def choices(self) -> tuple[tuple[Ids, int], ...]:
        """For each router the unit of each expert, and how many must stay: as many as it chooses."""
        found = ((self.of_ids(ids), least) for ids, least in self.walk.choices)
        return tuple((of_index, least) for of_index, least in found if (of_index >= 0).all())

    @property
    def way_out(self) -> str:
        """What may be said to who finds nothing to prune: where to look, and the option that may help."""
        told = "`compress analyze` says what is pinned and why"
        if any(pin.is_passable for pin in self.pin_at.values()):
            told += "; --through-norm exact lets go what passes a mean or a variance, where that is possible"
        return told

    def of_ids(self, ids: Ids) -> Ids:
        """Unit of each id of the walk, -1 where pinned or without parameters."""
        return self.unit_of_component[self.walk.components.component[ids]]

    def kept_along(self, keep: Keep, name: str, dim: int) -> Keep:
        """Which indices of a tensor's axis stay. Shapes: keep (n_units,) -> (size of the axis,)."""
        return self._with_pinned(keep)[self.axes[name, dim]]

    def kept_ids(self, keep: Keep, ids: Ids) -> Keep:
        """Which ids of the walk stay, in the shape of `ids`."""
        return self._with_pinned(keep)[self.of_ids(ids)]

    def kept_positions(self, keep: Keep, value: Value, dim: int) -> Keep:
        """Which positions along a dimension of a walked value stay. Shapes: keep (n_units,) -> (size,)

        Where a label varies along several dimensions at once, a position stays for the sake of any that cross it.
        """
        stay = np.ones(value.sizes[dim], dtype=bool)
        for label in value.along(dim):
            kept = self.kept_ids(keep, label.ids)
            at = label.dims.index(dim)
            others = tuple(d for d in range(kept.ndim) if d != at)
            stay &= kept.any(axis=others) if others else kept
        return stay

    @staticmethod
    def _with_pinned(keep: Keep) -> Keep:
        """Unit -1 reads the last entry: always kept."""
        return np.append(keep, True)

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self.axes))

    @cached_property
    def slices(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """For each unit the (tensor, dimension) axes it has indices on."""
        found: list[list[tuple[str, int]]] = [[] for _ in range(self.n_units)]
        for axis, units in self.axes.items():
            for unit in map(int, np.unique(units[units >= 0])):
                found[unit].append(axis)
        return tuple(tuple(axes) for axes in found)

    @cached_property
    def widths(self) -> tuple[tuple[str, Ids], ...]:
        """Sets of units that are all there is along a dimension of a tensor or value, each with the first such place.

        A choice must leave one of each: the parts of a split live on the same tensors, but one part may not be empty.
        """
        places = [(f"{name}, dimension {dim}", of_index) for (name, dim), of_index in self.axes.items()]
        for node, walked in self.walk.values.items():
            for part in walked if isinstance(walked, tuple) else (walked,):
                if isinstance(part, Value):
                    places.extend((node, self.of_ids(label.ids)) for label in part.labels)
        found: dict[bytes, tuple[str, Ids]] = {}
        for where, of_index in places:
            if of_index.size and of_index.min() >= 0:
                members = np.unique(of_index)
                found.setdefault(members.tobytes(), (where, members))
        return tuple(found.values())

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Units that live on exactly the same axes, equally often: the widths that a network has."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(self.n_units)]
        for number, of_index in enumerate(self.axes.values()):
            times = np.bincount(of_index[of_index >= 0])
            for unit in np.flatnonzero(times):
                found[unit].append((number, int(times[unit])))
        by_axes: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for unit, axes in enumerate(found):
            by_axes.setdefault(tuple(axes), []).append(unit)
        return tuple(tuple(units) for units in by_axes.values())

    @cached_property
    def group_of(self) -> Ids:
        """The number of the group that each unit is in. Shapes: -> (n_units,)"""
        found = np.zeros(self.n_units, dtype=np.int64)
        for number, members in enumerate(self.groups):
            found[list(members)] = number
        return found


def find_units(program: Program, options: WalkOptions | None = None) -> UnitMap:
    """The units of a program.

    Raises:  ModelError if the graph does not fit its tensors.
    Source:  the labels of `walk`; a unit is a class of ids that some parameter axis holds and nothing pins.
    """
    walked = walk(program, options)
    resolved = walked.components
    parameters = {name for name, _ in program.module.named_parameters()}
    on_parameter = np.zeros(resolved.n_components, dtype=bool)
    for (name, _), ids in walked.axes.items():
        if name in parameters:
            on_parameter[resolved.component[ids]] = True
    free = on_parameter & (resolved.pin_of < 0)
    unit_of_component = np.full(resolved.n_components, -1, dtype=np.int64)
    unit_of_component[free] = np.arange(int(free.sum()))
    axes = {axis: unit_of_component[resolved.component[ids]] for axis, ids in walked.axes.items()}
    pin_at = {
        axis: resolved.pins[int(pins.max())]
        for axis, ids in walked.axes.items()
        if (pins := resolved.pin_of[resolved.component[ids]]).size and pins.max() >= 0
    }
    return UnitMap(int(free.sum()), axes, pin_at, walked, unit_of_component)
