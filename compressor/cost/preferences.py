"""Which widths the kernels of a runtime like, kind by kind of operator; it must never hold units or take time itself.

A kernel works in blocks: it fills a width up to whole ones, so one filter more costs nothing until the block is full.
And it may have a form for certain multiples only, so that one channel less than that costs half as much again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from compressor.cost.terms import macs_of_layers
from compressor.program import CONTRACTIONS, Layer, Program, find_layers, measured_arguments

Counts: TypeAlias = Any
"""A number, or an array with an entry for each operator."""

KINDS = ("convolution", "pointwise", "depthwise", "grouped", "product", "concat")
"""Two-dimensional convolutions by their kernels and groups, every other product with a weight, and widths that end up
beside others in one tensor."""


@dataclass(frozen=True)
class Preference:
    """What one kind of operator likes.

    From a block on, reading a width that is no multiple of `multiple` takes `odd` times as long as the next one that
    is. Up to the next multiple of `block` the time grows little. Below a block other kernels do the work: to read half
    of one takes `half` of the time of a whole one, a quarter `quarter`; other widths lie on the lines through these.
    """

    multiple: Counts = 1
    block: Counts = 1
    odd: Counts = 1.0
    half: Counts = 0.5
    quarter: Counts = 0.25

    @staticmethod
    def stacked(parts: Sequence[Preference]) -> Preference:
        """Of many operators at once: each field an array with an entry for each."""
        columns = ([getattr(part, field.name) for part in parts] for field in fields(Preference))
        return Preference(*(np.array(column) for column in columns))

    def written(self, n: Counts) -> Counts:
        """How many filters take the time that `n` take, were every kernel as good as the best."""
        return _up(n, self.block)

    def read(self, n: Counts) -> Counts:
        """The same of input channels, of which less than a block may be read one by one."""
        n = np.asarray(n, dtype=np.float64)
        few: NDArray[np.float64] = 4 * self.quarter * n
        several: NDArray[np.float64] = self.block * (2 * self.quarter - self.half) + 4 * (self.half - self.quarter) * n
        short = np.where(4 * n < self.block, few, several)
        odd = np.where(n % self.multiple == 0, 1.0, self.odd)
        return np.where(n < self.block, short, odd * _up(n, self.block))


@dataclass(frozen=True)
class Preferences:
    """What each kind of operator likes; `trouble` says why it could not be measured, if that was tried."""

    of_kind: Mapping[str, Preference] = field(default_factory=dict[str, Preference])
    trouble: str | None = None

    def __getitem__(self, kind: str) -> Preference:
        return self.of_kind.get(kind, Preference())


USUAL = Preferences(
    {
        "convolution": Preference(4, 16, 1.6, 0.7, 0.4),
        "pointwise": Preference(4, 16, 1.3, 1.2, 1.0),
        "depthwise": Preference(16, 16, 10.0, 1.2, 1.0),
        "grouped": Preference(16, 16, 1.5, 0.8, 0.4),
        "product": Preference(4, 8, 1.05, 0.6, 0.4),
        "concat": Preference(16, 16, 1.2, 1.0, 1.0),
    }
)
"""What onnxruntime likes on processors with AVX-512, for where nothing can be measured. Blocks of AVX2 are halves of
these, so these do no harm there."""


@dataclass(frozen=True)
class Contraction:
    """A product with a weight: its kind, its groups, and in how many of these each axis of the weight is divided."""

    layer: Layer
    kind: str
    groups: int
    out_parts: int
    in_parts: int

    def widths(self, sizes: tuple[int, ...]) -> tuple[float, float]:
        """Filters and channels of one group."""
        assert self.layer.in_dim is not None
        return sizes[self.layer.out_dim] / self.out_parts, sizes[self.layer.in_dim] / self.in_parts


def contractions(program: Program) -> tuple[Contraction, ...]:
    """Every layer that multiplies and sums, in graph order."""
    nodes = {node.name: node for node in program.module.graph.nodes}
    tensors = program.module.tensors()
    return tuple(
        _contraction(program, layer, nodes[layer.node], tuple(tensors[layer.weight].shape))
        for layer in find_layers(program)
        if layer.kind in CONTRACTIONS and layer.in_dim is not None
    )


def _contraction(program: Program, layer: Layer, node: Node, sizes: tuple[int, ...]) -> Contraction:
    assert layer.in_dim is not None
    groups = measured_arguments(node, program.shapes).get("groups", 1)
    if layer.kind.startswith("conv_transpose"):
        return Contraction(layer, "product", groups, 1, groups)
    if layer.kind != "conv2d":
        return Contraction(layer, "product", groups, groups, 1)
    if groups > 1 and sizes[layer.in_dim] == 1:
        return Contraction(layer, "depthwise", groups, 1, 1)
    if groups > 1:
        return Contraction(layer, "grouped", groups, groups, 1)
    return Contraction(layer, "pointwise" if math.prod(sizes[2:]) == 1 else "convolution", 1, 1, 1)


def filled_work(program: Program, preferences: Preferences) -> float:
    """Multiply-adds of the layers as they would be if every width were filled up to what the kernels compute for it.

    It is no time, but it falls where time does: of two networks of one kind it says about which is how much faster.
    """
    return sum(filled_works(program, preferences))


def filled_works(program: Program, preferences: Preferences) -> tuple[float, ...]:
    """The same of each layer that multiplies, in graph order."""
    macs, tensors = macs_of_layers(program), program.module.tensors()
    works: list[float] = []
    for found in contractions(program):
        filters, channels = found.widths(tuple(tensors[found.layer.weight].shape))
        liked, read = preferences[found.kind], channels
        factor = float(liked.written(filters)) / filters
        if found.kind == "depthwise":
            factor, read = 1.0, filters
        works.append(macs.get(found.layer.node, 0) * factor * float(liked.read(read)) / read)
    return tuple(works)


def _up(n: Counts, multiple: int) -> Counts:
    return -(-np.asarray(n) // multiple) * multiple
