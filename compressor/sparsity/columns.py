"""The columns of the GEMM view, what they cost, and which units nobody reads any more; it must never rank or choose.

A column of a layer is one (input channel, kernel position) across all filters, of all groups. Columns of all layers lie
one after another in one array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.asking.pattern import Grain
from compressor.axes import Ids, Keep, UnitMap
from compressor.cost import weight_prices
from compressor.program import CONTRACTIONS, Layer, Program, why_columns_stay
from compressor.sparsity.budget import Budget
from compressor.typed_torch import from_numpy


@dataclass(frozen=True)
class ColumnLayer:
    """One weight. `item` numbers what goes together within the layer: each column, its channel or its kernel position.

    `unit_of_column` is the unit of each column's input channel, -1 where it is pinned; `price` is what one element
    costs in the budget, 0 out of scope; `free` says whether columns may be cut here.
    """

    weight: str
    out_dim: int
    unit_of_column: Ids
    item: Ids
    price: float
    free: bool

    @property
    def n_columns(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class Columns:
    """The columns of every layer that contracts, with what a choice of units and columns costs.

    `removable` are the units that may go when nobody reads them. Of each of `widths` one unit stays.
    """

    layers: tuple[ColumnLayer, ...]
    units: UnitMap
    budget: Budget
    removable: Keep
    widths: tuple[Ids, ...]

    @cached_property
    def starts(self) -> Ids:
        """Where each layer's columns begin, and the end. Shapes: -> (n_layers + 1,)"""
        return np.cumsum([0, *(layer.n_columns for layer in self.layers)]).astype(np.int64)

    @cached_property
    def unit(self) -> Ids:
        """Shapes: -> (n_columns,)"""
        return np.concatenate([layer.unit_of_column for layer in self.layers])

    @cached_property
    def is_read(self) -> Keep:
        """Units that some layer reads; of the others nothing can be said. Shapes: -> (n_units,)"""
        return np.bincount(self.unit[self.unit >= 0], minlength=self.units.n_units) > 0

    def with_channels(self, keep: Keep) -> Keep:
        """Columns whose input channel stays. Shapes: keep (n_units,) -> (n_columns,)"""
        return np.append(keep, True)[self.unit]

    def without_unread(self, keep: Keep, columns: Keep) -> Keep:
        """The units that are left when those go of which every reader's columns are cut.

        Shapes:  keep (n_units,), columns (n_columns,) -> (n_units,)
        """
        read = np.bincount(self.unit[columns & (self.unit >= 0)], minlength=self.units.n_units) > 0
        left = keep & (read | ~self.is_read | ~self.removable)
        for members in self.widths:
            if not left[members].any() and keep[members].any():
                left[members[np.argmax(keep[members])]] = True
        return left

    def cost(self, keep: Keep, columns: Keep) -> float:
        """What stays once unread units are removed and cut columns are left out of every layer.

        Shapes:  keep (n_units,), columns (n_columns,)
        """
        left = self.without_unread(keep, columns)
        cut = (self.with_channels(left) & ~columns).astype(np.float64)
        n_cut = np.add.reduceat(cut, self.starts[:-1]) if len(cut) else cut
        saved = 0.0
        for layer, n in zip(self.layers, n_cut, strict=True):
            if n and layer.price:
                saved += layer.price * float(n) * int(self.units.kept_along(left, layer.weight, layer.out_dim).sum())
        return self.budget.cost(left) - saved

    def masks(self, keep: Keep, columns: Keep, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks of the weights whose columns are cut; units are no part of them."""
        masks: dict[str, Tensor] = {}
        channels = self.with_channels(keep)
        for layer, start, end in zip(self.layers, self.starts, self.starts[1:], strict=False):
            own = columns[start:end]
            if (channels[start:end] & ~own).any():
                shape = tensors[layer.weight].shape
                rest = [size for dim, size in enumerate(shape) if dim != layer.out_dim]
                row = from_numpy(own.copy()).reshape(1, *rest).movedim(0, layer.out_dim)
                masks[layer.weight] = row.expand(shape).contiguous()
        return masks

    def of_masks(self, masks: Mapping[str, Tensor]) -> Keep:
        """Columns that masks leave: those with an element that stays. Shapes: -> (n_columns,)"""
        kept = np.ones(int(self.starts[-1]), dtype=bool)
        for layer, start, end in zip(self.layers, self.starts, self.starts[1:], strict=False):
            mask = masks.get(layer.weight)
            if mask is not None:
                kept[start:end] = mask.any(dim=layer.out_dim).flatten().cpu().numpy()
        return kept

    def energies(self, tensors: Mapping[str, Tensor], keep: Keep) -> NDArray[np.float64]:
        """Sum of squares of each column over the filters that stay. Shapes: -> (n_columns,)"""
        parts: list[NDArray[np.float64]] = []
        for layer in self.layers:
            weight = tensors[layer.weight].detach()
            rows = self.units.kept_along(keep, layer.weight, layer.out_dim)
            squares = weight.to(torch.float32).square().movedim(layer.out_dim, 0).flatten(1)
            if not rows.all():
                squares = squares[from_numpy(rows).to(squares.device)]
            parts.append(squares.sum(dim=0, dtype=torch.float64).cpu().numpy())
        return np.concatenate(parts)


def find_columns(
    program: Program,
    units: UnitMap,
    layers: Sequence[Layer],
    budget: Budget,
    *,
    grain: Grain,
    may_cut: set[str],
    counted: set[str],
    of: str,
    removable: Keep,
) -> Columns:
    """The columns of every convolution and linear layer; those of layers in `may_cut` are free to go.

    Layers of which compaction cannot leave columns out keep them all, so that the budget counts what is saved.
    """
    parameters = program.parameters
    price = weight_prices(program)
    found: dict[str, ColumnLayer] = {}
    for layer in layers:
        if layer.kind not in CONTRACTIONS or layer.weight not in parameters or layer.in_dim is None:
            continue
        shape = parameters[layer.weight].shape
        n_channels, n_positions = shape[layer.in_dim], math.prod(shape[2:])
        along = units.axes.get((layer.weight, layer.in_dim), np.full(n_channels, -1, dtype=np.int64))
        earlier = found.get(layer.weight)
        each = (1.0 if of == "params" else price.get(layer.node, 0.0)) if layer.name in counted else 0.0
        if earlier is not None:
            each = each + earlier.price if of == "macs" else max(each, earlier.price)
        found[layer.weight] = ColumnLayer(
            layer.weight,
            layer.out_dim,
            np.repeat(along, n_positions),
            _items(grain, n_channels, n_positions),
            each,
            layer.name in may_cut
            and why_columns_stay(layer, layers) is None
            and not (grain == "position" and n_positions == 1)
            and (earlier is None or earlier.free),
        )
    members = tuple(width for _, width in units.widths)
    return Columns(tuple(found.values()), units, budget, removable, members)


def _items(grain: Grain, n_channels: int, n_positions: int) -> Ids:
    if grain == "channel":
        return np.repeat(np.arange(n_channels), n_positions)
    if grain == "position":
        return np.tile(np.arange(n_positions), n_channels)
    return np.arange(n_channels * n_positions)
