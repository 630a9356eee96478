"""Which widths of a network its runtime likes, and what a choice of units takes by that; it must never choose.

A preference speaks about an operator's width (`cost.preferences`). A group of units is the width of several operators
at once, some of which count a unit several times: each index of a group of filters, each pixel of a flattened map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.axes import Ids, Keep, UnitMap, Value
from compressor.cost import Contraction, Preference, Preferences, contractions, macs_of_layers
from compressor.program import Layer, Program, TensorShape, arguments, families


@dataclass(frozen=True)
class Likes:
    """For each group of units the multiple that its width must be, so that operators are not slower than with more of
    it, and the block up to which more of it costs nothing.

    Shapes:  multiples, blocks (groups,)
    """

    multiples: Ids
    blocks: Ids

    def levels(self, sizes: Ids) -> tuple[Ids, ...]:
        """Steps of widths, from whole blocks over the multiples to single units, each half of those before: in narrow
        groups, which have one block or none to lose, and then in all. Shapes: sizes (groups,) -> each the same"""
        wide = sizes >= 2 * self.blocks
        found, steps = [self.blocks], self.blocks
        for least in (self.multiples, np.ones_like(self.multiples)):
            while (steps > least).any():
                steps = np.maximum(steps // 2, least)
                found += [np.where(wide, self.blocks, steps), steps]
        return tuple(found)

    def steps(self, sizes: Ids) -> Ids:
        """Whole blocks where a group has several, else the finest steps. Shapes: sizes (groups,) -> the same"""
        return np.where(sizes >= 2 * self.blocks, self.blocks, self.multiples)


def find_likes(program: Program, units: UnitMap, preferences: Preferences) -> Likes:
    """What every operator likes that a group is a width of."""
    group, sizes = units.group_of, np.array([len(members) for members in units.groups], dtype=np.int64)
    multiples, blocks = np.ones_like(sizes), np.ones_like(sizes)

    def note(of_index: Ids, parts: int, multiple: int, block: int) -> None:
        counts = np.bincount(group[of_index[of_index >= 0]], minlength=len(sizes))
        for g in np.flatnonzero(counts):
            each = max(int(counts[g] // sizes[g]) // parts, 1)
            multiples[g] = math.lcm(int(multiples[g]), _per_unit(multiple, each))
            blocks[g] = math.lcm(int(blocks[g]), _per_unit(block, each))

    for found in contractions(program):
        liked = preferences[found.kind]
        for dim, parts in _axes(found):
            note(units.axes[found.layer.weight, dim], parts, liked.multiple, liked.block)
    for of_index in _concatenated(program, units):
        note(of_index, 1, 1, preferences["concat"].block)
    return Likes(multiples, np.maximum(blocks, multiples))


def steps_of(units: UnitMap, layers: Sequence[Layer], multiple: int) -> Ids:
    """For each group of units how many of them make a multiple of filters in every layer whose filters they are; units
    that no layer has for filters count as one each. Shapes: -> (groups,)"""
    sizes = np.array([len(members) for members in units.groups], dtype=np.int64)
    steps, is_owned = np.ones_like(sizes), np.zeros(len(sizes), dtype=bool)
    for layer in layers:
        of_index = units.axes.get((layer.weight, layer.out_dim))
        if of_index is None:
            continue
        counts = np.bincount(units.group_of[of_index[of_index >= 0]], minlength=len(sizes))
        for g in np.flatnonzero(counts):
            steps[g] = math.lcm(int(steps[g]), _per_unit(multiple, max(int(counts[g] // sizes[g]), 1)))
            is_owned[g] = True
    return np.where(is_owned, steps, multiple)


def _concatenated(program: Program, units: UnitMap) -> Iterator[Ids]:
    """The units along the channels of every map that is put beside others."""
    for node in program.module.graph.nodes:
        shape = program.shapes.get(node.name)
        if node.target not in families.CAT or not isinstance(shape, TensorShape) or len(shape.sizes) != 4:
            continue
        if arguments(node)["dim"] in (1, -3):
            for part in arguments(node)["tensors"]:
                value = units.walk.values.get(part.name)
                if isinstance(value, Value):
                    yield from (units.of_ids(label.ids) for label in value.along(1) if label.dims == (1,))


def _per_unit(multiple: int, each: int) -> int:
    """Of units that count `each` indices, so many make a multiple."""
    return multiple // math.gcd(multiple, each)


def _axes(found: Contraction) -> tuple[tuple[int, int], ...]:
    """The weight's filter and channel dimension, each with the parts that it falls into."""
    assert found.layer.in_dim is not None
    return (found.layer.out_dim, found.out_parts), (found.layer.in_dim, found.in_parts)


@dataclass(frozen=True)
class FilledWork:
    """What the layers that multiply take, as a function of which units stay: multiply-adds as they would be if every
    width were filled up to what the kernels compute for it. It is no time, but it falls where time does.

    `flat` holds the units along every layer's filters, then its channels, one axis after another; `starts` where each
    axis begins, `sizes` what it measures and `parts` in how many it is divided; `price` is the work per filter and
    channel, `reads` where channels count (in a depthwise convolution the filters are what is read).

    Shapes:  starts, sizes, parts (2 x layers,); price, reads (layers,)
    """

    flat: Ids
    starts: Ids
    parts: Ids
    price: NDArray[np.float64]
    reads: Keep
    liked: Preference

    @staticmethod
    def of(program: Program, units: UnitMap, preferences: Preferences) -> FilledWork:
        macs, layers = macs_of_layers(program), contractions(program)
        axes = [units.axes[x.layer.weight, dim] for x in layers for dim, _ in _axes(x)]
        parts = np.array([n for x in layers for _, n in _axes(x)], dtype=np.int64)
        sizes = np.array([len(axis) for axis in axes], dtype=np.int64)
        work = np.array([float(macs.get(x.layer.node, 0)) for x in layers])
        starts = np.cumsum([0, *sizes])[:-1].astype(np.int64)
        return FilledWork(
            np.concatenate(axes) if axes else np.zeros(0, dtype=np.int64), starts, parts,
            work / (sizes[0::2] * sizes[1::2]), np.array([x.kind != "depthwise" for x in layers], dtype=bool),
            Preference.stacked([preferences[x.kind] for x in layers]),
        )  # fmt: skip

    def at(self, keep: Keep) -> float:
        """Shapes: keep (n_units,)"""
        if not len(self.starts):
            return 0.0
        counts = np.add.reduceat(np.append(keep, True)[self.flat].astype(np.float64), self.starts) / self.parts
        n_filters, n_channels = counts[0::2], counts[1::2]
        written: NDArray[np.float64] = self.liked.written(n_filters)
        read: NDArray[np.float64] = self.liked.read(n_filters)
        filters = np.where(self.reads, written, read)
        channels = np.where(self.reads, self.liked.read(n_channels) * self.parts[1::2], 1.0)
        return float((self.price * filters * self.parts[0::2] * channels).sum())
