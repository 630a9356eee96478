"""Columns of the GEMM view as the thing to choose: pattern `shape`, alone or inside of whole units (`filter+shape`).

It must never look at single weights. With units, these are chosen first, for a part of the ratio; columns of what is
left fill the rest of the budget. A unit that no column reads any more goes with all its slices: it is dead, compaction
would remove it, and so it has to count as removed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compressor.axes import Ids, Keep
from compressor.errors import RatioError
from compressor.program import Program
from compressor.program.masks import merge_masks
from compressor.sparsity.allocation import largest_ratio
from compressor.sparsity.choice import Choice, Selection
from compressor.sparsity.columns import Columns
from compressor.sparsity.masks import kept_units, mask_units
from compressor.sparsity.scores import Scores, normalise_lamp, random_scores
from compressor.sparsity.select_units import UnitSelector
from compressor.units import format_ratio, format_reachable

_FILL_TRIES = 128
_CLOSE_ENOUGH = 1e-3
_POWER = 0.5
_SHARES = 5
"""Parts of the ratio that units are tried with, from what was asked to all of it."""


@dataclass(frozen=True)
class ShapeSelector:
    """Columns, within the units that `inner` leaves (None: all of them)."""

    program: Program
    columns: Columns
    choice: Choice
    inner: UnitSelector | None
    notes: tuple[str, ...] = ()

    @property
    def dense(self) -> float:
        return self.columns.budget.dense

    def select(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor] | None = None
    ) -> Selection:
        before = masks or {}
        keep = kept_units(self.columns.units, before, self.program.parameters) if before else self._all_units()
        alive = self.columns.of_masks(before)
        chosen = alive
        if not before or self.columns.cost(keep, alive) > self.dense / ratio:
            keep, chosen = self._choose(tensors, ratio, before, keep, alive)
        left = self.columns.without_unread(keep, chosen)
        found = merge_masks(
            mask_units(self.program.module, self.columns.units, left), self.columns.masks(left, chosen, tensors)
        )
        return Selection(found, self.dense, self.columns.cost(keep, chosen), left)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep) -> float:
        return self.columns.cost(keep, self.columns.of_masks(masks))

    def _all_units(self) -> Keep:
        return np.ones(self.columns.units.n_units, dtype=bool)

    def _choose(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor], keep: Keep, alive: Keep
    ) -> tuple[Keep, Keep]:
        """Units and columns. Units carry `unit_share` of the ratio, and more where the columns that are left cannot
        carry the rest.

        Raises:  RatioError with the largest feasible ratio.
        """
        if self.inner is None:
            return keep, self._rank(tensors, keep, alive).choose(ratio, self.dense)
        for share in np.linspace(self.choice.asked.unit_share, 1, _SHARES)[:-1]:
            with contextlib.suppress(RatioError):
                keep = self._choose_units(self.inner, tensors, ratio**share, masks)
                return keep, self._rank(tensors, keep, alive).choose(ratio, self.dense)
        keep = self._choose_units(self.inner, tensors, ratio, masks)
        return keep, self._rank(tensors, keep, alive).choose(ratio, self.dense)

    def _choose_units(
        self, inner: UnitSelector, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor]
    ) -> Keep:
        """Units for this ratio, or for as much of it as their floors allow."""
        ranked, rules = inner.ranking(tensors, masks)
        most = largest_ratio(ranked, rules, inner.budget.cost, inner.dense)
        asked = min(ratio, most * (1 - 1e-9))  # less the rounding of its own division
        return inner.choose(ranked, rules, asked)

    def _rank(self, tensors: Mapping[str, Tensor], keep: Keep, alive: Keep) -> ColumnRanking:
        """What may go, by score: LAMP within each layer, times its number of items to a power, as for units.

        One-shot at 2x on the CIFAR-10 ResNet-20, batch norm re-calibrated, 500 test images, powers 0, 1/4,
        1/2, 3/4, 1: of MACs 43, 52, 62, 59, 55 %, of parameters 63, 65, 65, 58, 46 %.
        """
        present = self.columns.with_channels(keep) & alive
        energies = self.columns.energies(tensors, keep)
        number = 0
        items = np.full(len(present), -1, dtype=np.int64)
        scores: list[Scores] = []
        layers: list[Ids] = []
        for i, (layer, start, end) in enumerate(
            zip(self.columns.layers, self.columns.starts, self.columns.starts[1:], strict=False)
        ):
            here = np.flatnonzero(present[start:end])
            if not layer.free or not len(here):
                continue
            _, own = np.unique(layer.item[here], return_inverse=True)
            n = int(own.max()) + 1
            items[start + here] = number + own
            mean = np.bincount(own, energies[start:end][here], n) / np.bincount(own, minlength=n)
            scores.append(self._compare(mean, i))
            layers.append(np.full(n, i, dtype=np.int64))
            number += n
        none = np.zeros(0)
        return ColumnRanking(
            self.columns, self.choice, keep, present, items,
            np.concatenate([*scores, none]), np.concatenate([*layers, none.astype(np.int64)]),
        )  # fmt: skip

    def _compare(self, means: NDArray[np.float64], layer: int) -> Scores:
        n = len(means)
        if self.choice.asked.rates == "random":
            means = random_scores(n, self.choice.asked.seed + layer)
        if self.choice.asked.rates == "random" or self.choice.asked.allocation == "uniform":
            places = np.empty(n)
            places[np.argsort(means, kind="stable")] = np.arange(n)
            return places / n
        return n**_POWER * normalise_lamp(means)


@dataclass(frozen=True)
class ColumnRanking:
    """Items that may go, over all layers: the item of each column (-1: it stays or is gone), score and layer of each.

    `keep` are the units and `present` the columns to start from.
    """

    columns: Columns
    choice: Choice
    keep: Keep
    present: Keep
    item: Ids
    scores: Scores
    layer: Ids

    def choose(self, ratio: float, dense: float) -> Keep:
        """The columns to keep. Shapes: -> (n_columns,). Raises: RatioError with the largest feasible ratio."""
        order = self._removal_order()
        target = dense / ratio
        least = self._cost(order, len(order))
        if least > target * (1 + 1e-12):
            asked = self.choice.asked
            more = "" if asked.pattern.units is not None else ", or cut whole units as well: --pattern filter+shape"
            raise RatioError(
                f"--ratio {format_ratio(ratio)}: the largest feasible is {format_reachable(dense / least)}; the rest is"
                f" pinned, out of scope or under the floor of each layer\nlower --floor (now {asked.floor:g}) or"
                f" --round-to (now {asked.round_to}){more}"
            )
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._cost(order, middle) <= target else (middle + 1, high)
        gone = np.zeros(len(self.scores), dtype=bool)
        gone[order[:high]] = True
        if self.choice.asked.round_to <= 1:
            self._fill(gone, order[:high], target)
        return self._columns(self._rounded(gone, order))

    def _removal_order(self) -> Ids:
        """Items, the least important first, without the best of each layer up to its floor."""
        may_go = np.ones(len(self.scores), dtype=bool)
        for i, layer in enumerate(self.columns.layers):
            members = np.flatnonzero(self.layer == i)
            if len(members):
                n_dense = int(layer.item.max()) + 1
                protect = min(max(1, math.ceil(self.choice.asked.floor * n_dense)), len(members))
                may_go[members[np.argsort(self.scores[members], kind="stable")[-protect:]]] = False
        items = np.flatnonzero(may_go)
        return items[np.argsort(self.scores[items], kind="stable")]

    def _cost(self, order: Ids, n: int) -> float:
        gone = np.zeros(len(self.scores), dtype=bool)
        gone[order[:n]] = True
        return self.columns.cost(self.keep, self._columns(self._rounded(gone, order)))

    def _columns(self, gone: NDArray[np.bool_]) -> Keep:
        return self.present & ~np.append(gone, False)[self.item]

    def _rounded(self, gone: NDArray[np.bool_], order: Ids) -> NDArray[np.bool_]:
        """The same with the best of what goes given back until each layer's count is a multiple; kernel positions are
        too few to round."""
        multiple = self.choice.asked.round_to
        if multiple <= 1 or not len(gone) or self.choice.asked.pattern.grain == "position":
            return gone
        n_layers = len(self.columns.layers)
        sizes = np.bincount(self.layer, minlength=n_layers)
        kept = sizes - np.bincount(self.layer[gone], minlength=n_layers)
        missing = np.minimum(-(-kept // multiple) * multiple, sizes) - kept
        best_first = order[::-1]
        best_first = best_first[gone[best_first]]
        layer = self.layer[best_first]
        by_layer = np.argsort(layer, kind="stable")
        firsts = np.searchsorted(layer[by_layer], np.arange(n_layers))
        place = np.empty(len(layer), dtype=np.int64)
        place[by_layer] = np.arange(len(layer)) - firsts[layer[by_layer]]
        rounded = gone.copy()
        rounded[best_first[place < missing[layer]]] = False
        return rounded

    def _fill(self, gone: NDArray[np.bool_], cut: Ids, target: float) -> None:
        """Give items back, the most important first, while the cost stays within the target."""
        spent = self.columns.cost(self.keep, self._columns(gone))
        for item in cut[::-1][:_FILL_TRIES]:
            if spent >= target * (1 - _CLOSE_ENOUGH):
                return
            gone[item] = False
            tried = self.columns.cost(self.keep, self._columns(gone))
            gone[item] = tried > target
            spent = tried if tried <= target else spent
