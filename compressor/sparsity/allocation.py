"""From scores and a budget to a choice of units; it must never compute scores or look at weights.

A ranking is cut at the point where the budget is met (bisection on the number of units that go), then filled up again
with units that fit, because one unit of a wide layer can be worth several per cent of a small network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.axes import Ids, Keep
from compressor.errors import RatioError
from compressor.sparsity.scores import Scores, normalise_lamp
from compressor.units import format_ratio, format_reachable

_FILL_TRIES = 512
"""Units that are tried again after the cut: enough for the granularity of small networks, bounded for large ones."""
_CLOSE_ENOUGH = 1e-3
"""Share of the budget that may be left over: in a large network one unit is worth less, and trying takes time."""


@dataclass(frozen=True)
class Rules:
    """What a choice must respect. `group` numbers the width that each unit belongs to.

    `free` units may go; each group keeps at least `floor` of its units (never fewer than one), and a multiple of
    its `step` where it has as many. Of each of `widths` one unit stays, too: parts of a split share their tensors and
    thus their group, but none may be empty. Of the places in `least`, each with its unit, so many stay: a router takes
    no fewer experts. `gone` units are cut already, by an earlier run or stage: they stay cut, count as cut, and are no
    part of any floor. `multiple` is what was asked for in filters, of which a unit may have several.
    """

    group: Ids
    free: NDArray[np.bool_]
    floor: float
    step: int | Ids
    widths: tuple[Ids, ...] = ()
    gone: NDArray[np.bool_] | None = None
    least: tuple[tuple[Ids, int], ...] = ()
    multiple: int = 1

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Shapes: -> (n_units,)"""
        return np.ones(len(self.group), dtype=bool) if self.gone is None else ~self.gone

    @property
    def n_groups(self) -> int:
        return int(self.group.max()) + 1 if len(self.group) else 0

    @property
    def sizes(self) -> Ids:
        """Units of each group. Shapes: -> (n_groups,)"""
        return np.bincount(self.group, minlength=self.n_groups)

    @property
    def steps(self) -> Ids:
        """Shapes: -> (n_groups,)"""
        return np.broadcast_to(np.asarray(self.step, dtype=np.int64), (self.n_groups,))

    @property
    def is_rounded(self) -> bool:
        return bool((self.steps > 1).any())

    def up(self, widths: Ids) -> Ids:
        """Widths filled up to whole steps. Shapes: (n_groups,) -> the same"""
        return -(-widths // self.steps) * self.steps


def rank_scores(scores: Scores, rules: Rules, allocation: str, of: str = "params") -> Scores:
    """Scores that can be compared across groups.

    `uniform`: the place within the group, so that every group loses the same share. `global`: LAMP within the group,
    which protects a group the more, the more of its energy the remaining units carry, times the group's size to a
    power. Plain LAMP (power 0) would leave all groups equally many units, whatever their width; power 1 equal shares.
    Measured one-shot on the CIFAR-10 ResNet-20 with batch-norm re-calibration: at 2x MACs power 1 keeps 56 % accuracy,
    1/2 46 %, 0 29 %; at 2x parameters 48, 61 and 60 %, because narrow groups hold few parameters.
    """
    power = 0.5 if of == "params" else 1.0
    ranked = np.empty_like(scores)
    for g in range(rules.n_groups):
        members = np.flatnonzero(rules.group == g)
        if allocation == "uniform":
            places = np.empty(len(members))
            places[np.argsort(scores[members], kind="stable")] = np.arange(len(members))
            ranked[members] = places / len(members)
        else:
            ranked[members] = len(members) ** power * normalise_lamp(scores[members])
    return ranked


def choose_units(
    ranked: Scores, rules: Rules, cost: Callable[[Keep], float], dense: float, ratio: float,
    loss: Callable[[Keep], float] | None = None,
) -> Keep:  # fmt: skip
    """The units to keep so that dense ÷ cost is at least `ratio` and as close to it as units allow.

    Of choices that are as close as rounded widths come, the one of least `loss` is taken (default: the closest).

    Shapes:  ranked (n_units,) -> (n_units,)
    Raises:  RatioError with the largest feasible ratio if the floors forbid it.
    """
    order = _removal_order(ranked, rules)
    target = dense / ratio
    low, high = 0, len(order)
    least = cost(_without(order, high, rules))
    if least > target:
        raise RatioError(
            f"--ratio {format_ratio(ratio)}: the largest feasible is {format_reachable(dense / least)}; the rest is"
            f" pinned or under the floor of each layer\nlower --floor (now {rules.floor:g})"
            f" or --round-to (now {rules.multiple}), or see `compress analyze` for what is pinned and why"
        )
    while low < high:
        middle = (low + high) // 2
        if cost(_without(order, middle, rules)) <= target:
            high = middle
        else:
            low = middle + 1
    keep = _without(order, high, rules)
    if rules.is_rounded:
        starts = (keep, _without_odd_widths(keep, order, rules))
        filled = [_fill(start, _whole_steps(start, order, rules), cost, target, rules.group) for start in starts]
        return min(filled, key=loss) if loss is not None else max(filled, key=cost)
    return _fill(keep, list(order[:high][::-1, None]), cost, target)


def largest_ratio(ranked: Scores, rules: Rules, cost: Callable[[Keep], float], dense: float) -> float:
    """Dense ÷ cost with everything gone that may go."""
    order = _removal_order(ranked, rules)
    return dense / cost(_without(order, len(order), rules))


def _removal_order(ranked: Scores, rules: Rules) -> Ids:
    """Units that may go, the least important first; each group's best stay out of it up to its floor."""
    removable = rules.free & rules.alive
    for g in range(rules.n_groups):
        members = np.flatnonzero(rules.group == g)
        n_floor = min(len(members), max(1, math.ceil(rules.floor * len(members))))
        n_pinned = int((~rules.free & rules.alive)[members].sum())
        protect = max(n_floor - n_pinned, 0)
        candidates = members[removable[members]]
        if protect:
            best = candidates[np.argsort(ranked[candidates], kind="stable")[-protect:]]
            removable[best] = False
    for width in rules.widths:
        members = width[rules.alive[width]]
        if len(members) and removable[members].all():
            removable[members[np.argmax(ranked[members])]] = False
    for of_place, n_least in rules.least:
        _protect(removable, ranked, of_place[rules.alive[of_place]], n_least)
    units = np.flatnonzero(removable)
    return units[np.argsort(ranked[units], kind="stable")]


def _protect(removable: NDArray[np.bool_], ranked: Scores, of_place: Ids, n_least: int) -> None:
    """The best units of these places, in place, until as many places stay. Shapes: of_place (n_places,)"""
    may_go = np.unique(of_place[removable[of_place]])
    for unit in may_go[np.argsort(ranked[may_go], kind="stable")[::-1]]:
        if int((~removable[of_place]).sum()) >= n_least:
            break
        removable[unit] = False


def _without(order: Ids, n: int, rules: Rules) -> Keep:
    """Everything but the first `n` of the removal order, rounded up to whole multiples per group."""
    keep = rules.alive.copy()
    keep[order[:n]] = False
    if rules.is_rounded:
        sizes = np.bincount(rules.group, minlength=rules.n_groups)
        kept = np.bincount(rules.group[keep], minlength=rules.n_groups)
        wanted = np.minimum(rules.up(kept), sizes)
        keep[_best_of_each(order[:n][::-1], rules.group, wanted - kept)] = True
    return keep


def _best_of_each(best_first: Ids, group: Ids, n: Ids) -> Ids:
    """The first `n` units of each group. Shapes: best_first (m,), group (n_units,), n (n_groups,)"""
    groups = group[best_first]
    by_group = np.argsort(groups, kind="stable")
    firsts = np.searchsorted(groups[by_group], np.arange(len(n)))
    place = np.empty(len(groups), dtype=np.int64)
    place[by_group] = np.arange(len(groups)) - firsts[groups[by_group]]
    return best_first[place < n[groups]]


def _without_odd_widths(keep: Keep, order: Ids, rules: Rules) -> Keep:
    """Whole groups whose width is no multiple, at the multiple below: 16 of 20, not 20."""
    lower = keep.copy()
    for g in range(rules.n_groups):
        odd = int((rules.group == g).sum()) % int(rules.steps[g])
        spare = order[(rules.group[order] == g) & keep[order]]
        if odd and keep[rules.group == g].all() and len(spare) >= odd:
            lower[spare[:odd]] = False
    return lower


def _whole_steps(keep: Keep, order: Ids, rules: Rules) -> list[Ids]:
    """What was cut, in steps that keep every group a multiple of its own; that with the most important unit first.

    The last step of a group makes it whole and may be smaller. These come after all others: no multiple stands behind
    the width they lead to, and within their group they must come last.
    A width of 16 in a small network can be a third of the budget, and would be left unused without this.
    """
    places = {int(unit): place for place, unit in enumerate(order)}
    steps: list[Ids] = []
    for g in range(rules.n_groups):
        gone = order[(rules.group[order] == g) & ~keep[order]][::-1]
        whole = int(rules.steps[g])
        steps += [gone[i : i + whole] for i in range(0, len(gone), whole)]
    return sorted(steps, key=lambda step: (len(step) < rules.steps[rules.group[step[0]]], -places[int(step[0])]))


def _fill(
    keep: Keep, steps: Sequence[Ids], cost: Callable[[Keep], float], target: float, group: Ids | None = None
) -> Keep:
    """Give back steps of units, the most important first, while the cost stays within the target.

    With `group`, of each unit, a step that is refused ends its group.
    """
    spent, ended = cost(keep), set[int]()
    for step in steps[:_FILL_TRIES]:
        if spent >= target * (1 - _CLOSE_ENOUGH):
            break
        if group is not None and int(group[step[0]]) in ended:
            continue
        keep[step] = True
        tried = cost(keep)
        keep[step] = tried <= target
        if tried <= target:
            spent = tried
        elif group is not None:
            ended.add(int(group[step[0]]))
    return keep
