"""The widths that take the least time among those that cost the same; it must never measure or look at weights.

Which units of a width go is still a matter of their scores: only how many is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.axes import Ids, Keep
from compressor.sparsity.allocation import Rules
from compressor.sparsity.budget import Budget
from compressor.sparsity.latency import LatencyBudget
from compressor.sparsity.scores import Scores

_LEAST_SHARE = 0.97
"""Of the weights (or MACs) that the ratio leaves, so many must be used: less would always be faster."""

_MOST_TRIED = 200_000
_MOST_ROUNDS = 200
_STEPS = 4

Widths = NDArray[np.int64]


@dataclass(frozen=True)
class _Model:
    """Costs as functions of how many units each group keeps. Shapes: counts (axes, groups), constant (axes,)"""

    counts: NDArray[np.float64]
    constant: NDArray[np.float64]

    @staticmethod
    def of(axes: list[Ids], rules: Rules) -> _Model:
        """Each axis as a sum over groups: all units of a group live on the same axes, equally often."""
        counts, constant = np.zeros((len(axes), rules.n_groups)), np.zeros(len(axes))
        sizes = np.bincount(rules.group, minlength=rules.n_groups)
        for i, axis in enumerate(axes):
            units = axis[axis >= 0]
            counts[i] = np.bincount(rules.group[units], minlength=rules.n_groups) / np.maximum(sizes, 1)
            constant[i] = len(axis) - len(units)
        return _Model(counts, constant)

    def at(self, widths: Widths) -> NDArray[np.float64]:
        """Kept counts of every axis. Shapes: (n, groups) -> (n, axes)"""
        return widths @ self.counts.T + self.constant


class WidthSearch:
    """Exchanges of units between groups that keep the budget and save time, the best one first, until none does."""

    def __init__(self, rules: Rules, budget: Budget, latency: LatencyBudget) -> None:
        self._rules, self._budget, self._latency = rules, budget, latency
        ends = [*budget.starts[1:], len(budget.flat)]
        self._paid = _Model.of([budget.flat[a:b] for a, b in zip(budget.starts, ends, strict=True)], rules)
        self._timed = _Model.of([axis for x in latency.layers for axis in (x.filters, x.channels)], rules)

    def cost(self, widths: Widths) -> NDArray[np.float64]:
        """What the budget counts. Shapes: (n, groups) -> (n,)"""
        counts = np.concatenate([self._paid.at(widths), np.ones((len(widths), 1))], axis=1)
        return counts[:, self._budget.factors].prod(axis=2) @ self._budget.coefficients

    def seconds(self, widths: Widths) -> NDArray[np.float64]:
        """Shapes:  (n, groups) -> (n,)"""
        counts = self._timed.at(widths)
        return np.sum(
            [x.table.at(counts[:, 2 * i], counts[:, 2 * i + 1]) for i, x in enumerate(self._latency.layers)], 0
        )

    def fastest(self, start: Widths, target: float) -> Widths:
        """The fastest of all widths that cost about `target`, where those can all be tried; else where exchanges lead
        to from `start`, whose cost is at most `target`. Shapes: (groups,) -> (groups,)"""
        least, most = self._limits()
        steps = self._steps(most)
        floor = min(_LEAST_SHARE * target, float(self.cost(start[None])[0]))
        everything = _all_widths(steps, least, most)
        if everything is not None:
            cost = self.cost(everything)
            fitting = everything[(cost <= target) & (cost >= floor)]
            return fitting[np.argmin(self.seconds(fitting))] if len(fitting) else start
        widths = np.clip(start, least, most)
        best = float(self.seconds(widths[None])[0])
        for _ in range(_MOST_ROUNDS):
            tried = np.array(list(_exchanges(widths, steps, least, most)))
            if not len(tried):
                break
            cost = self.cost(tried)
            tried = tried[(cost <= target) & (cost >= floor)]
            if not len(tried):
                break
            seconds = self.seconds(tried)
            i = int(np.argmin(seconds))
            if seconds[i] >= best * (1 - 1e-9):
                break
            widths, best = tried[i], float(seconds[i])
        return widths

    def _limits(self) -> tuple[Widths, Widths]:
        """Fewest and most units of each group. Shapes: -> (groups,), (groups,)"""
        rules, n = self._rules, self._rules.n_groups
        alive = np.bincount(rules.group[rules.alive], minlength=n)
        fixed = np.bincount(rules.group[rules.alive & ~rules.free], minlength=n)
        sizes = np.bincount(rules.group, minlength=n)
        floor = np.ceil(np.maximum(rules.floor * sizes, 1)).astype(np.int64)
        floor = rules.up(floor)
        return np.minimum(np.maximum(fixed, floor), alive), alive

    def _steps(self, most: Widths) -> Widths:
        return np.where(self._rules.steps > 1, self._rules.steps, np.maximum(most // 32, 1))


def _all_widths(steps: Widths, least: Widths, most: Widths) -> Widths | None:
    """Every combination of whole steps and the most, None where there are too many. Shapes: -> (n, groups)"""
    levels: list[Widths] = []
    for first, last, step in zip(least, most, steps, strict=True):
        reached = np.arange(int(first), int(last), int(step), dtype=np.int64)
        levels.append(np.append(reached, last))
    if np.prod([float(len(level)) for level in levels]) > _MOST_TRIED:
        return None
    return np.stack([axis.ravel() for axis in np.meshgrid(*levels, indexing="ij")], axis=1)


def _exchanges(widths: Widths, steps: Widths, least: Widths, most: Widths) -> Iterator[Widths]:
    """Up to some steps less in one group and more in another one, and each alone."""
    free = np.flatnonzero(most > least)
    moves = [(g, k) for g in free for k in range(-_STEPS, _STEPS + 1) if k]
    for g, k in moves:
        one = widths.copy()
        one[g] = np.clip(one[g] + k * steps[g], least[g], most[g])
        yield one
        for h, j in moves:
            if h > g and (j > 0) != (k > 0):
                two = one.copy()
                two[h] = np.clip(two[h] + j * steps[h], least[h], most[h])
                yield two


def keep_widths(ranked: Scores, rules: Rules, widths: Widths) -> Keep:
    """The best units of each group, what may not go among them. Shapes: ranked (n_units,), widths (groups,)"""
    keep = rules.alive & ~rules.free
    for g in range(rules.n_groups):
        members = np.flatnonzero((rules.group == g) & rules.alive & rules.free)
        n = max(int(widths[g]) - int(keep[rules.group == g].sum()), 0)
        best = members[np.argsort(ranked[members], kind="stable")]
        keep[best[len(best) - min(n, len(best)) :]] = True
    for width in rules.widths:  # a part of a split that all of its units would leave keeps its best
        if len(width) and not keep[width].any() and rules.alive[width].any():
            alive = width[rules.alive[width]]
            keep[alive[np.argmax(ranked[alive])]] = True
    return keep
