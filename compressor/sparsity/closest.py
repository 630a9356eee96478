"""A choice of units in widths that the runtime likes, as close to the budget as these come; it must never measure.

Whole blocks first. Where these overshoot, finer steps are tried, and what decides between them is the work that kernels
will do against how much more than asked goes: a narrow network must not lose a third more because its widths are few,
nor a wide one its speed for the last per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from compressor.axes import Keep
from compressor.errors import RatioError
from compressor.sparsity.allocation import Rules, choose_units
from compressor.sparsity.likes import Likes
from compressor.sparsity.scores import Scores

CLOSE = 1.02
"""Asked = got: so much more than asked is nothing to be mended."""

_MOST = 1.1
"""More than this is not cut for the sake of speed, where anything comes closer."""

_ENOUGH = 2
"""Levels that bring nothing, after one that came close: finer ones bring nothing either."""

_MOST_STEPS = 16


@dataclass(frozen=True)
class Closeness:
    """What a choice is worth: `cost` is what the budget counts, `work` what the kernels do."""

    cost: Callable[[Keep], float]
    work: Callable[[Keep], float]
    target: float

    def over(self, keep: Keep) -> float:
        """How many times more than asked is gone."""
        return self.target / self.cost(keep)

    def worth(self, keep: Keep) -> float:
        return -self.loss(keep)

    def loss(self, keep: Keep) -> float:
        """What there is to do, times the square of what is lost beyond what was asked: 10 % more cut must save 20 %."""
        return self.work(keep) * max(self.over(keep), CLOSE) ** 2


def choose_liked(ranked: Scores, rules: Rules, likes: Likes, closeness: Closeness, dense: float, ratio: float) -> Keep:
    """The units to keep so that dense ÷ cost is at least `ratio`.

    Shapes:  ranked (n_units,) -> (n_units,)
    Raises:  RatioError with the largest feasible ratio if the floors forbid it.
    """
    if closeness.over(rules.alive) >= 1:
        return rules.alive  # it was reached before, in whatever widths: nothing is cut for their sake
    found: list[Keep] = []
    refused: RatioError | None = None
    starts = (rules, _without_remainders(ranked, rules, likes))
    best, idle = float("inf"), 0
    for steps in likes.levels(rules.sizes):
        for start in starts:
            try:
                stepped = replace(start, step=steps)
                keep = choose_units(ranked, stepped, closeness.cost, dense, ratio, closeness.worth)
            except RatioError as error:
                refused = error
                continue
            found.append(_closer(keep, ranked, start, likes, closeness))
        near = [closeness.loss(keep) for keep in found if closeness.over(keep) <= CLOSE]
        idle, best = (0, min(near)) if near and min(near) < best else (idle + bool(near), best)
        if idle == _ENOUGH:
            break
    if not found:
        assert refused is not None
        raise refused
    near = [keep for keep in found if closeness.over(keep) <= _MOST]
    return min(near, key=closeness.loss) if near else min(found, key=closeness.over)


def _without_remainders(ranked: Scores, rules: Rules, likes: Likes) -> Rules:
    """The rules with the last units gone of every group that is no multiple as it is: 252 of 255, which are slow."""
    gone = ~rules.alive
    widths = np.bincount(rules.group[rules.alive], minlength=rules.n_groups)
    for g in np.flatnonzero((widths % likes.multiples > 0) & (widths > likes.blocks)):
        free = np.flatnonzero((rules.group == g) & rules.free & rules.alive)
        n = int(widths[g] % likes.multiples[g])
        if n < len(free):
            gone[free[np.argsort(ranked[free], kind="stable")][:n]] = True
    return replace(rules, gone=gone)


def _closer(keep: Keep, ranked: Scores, rules: Rules, likes: Likes, closeness: Closeness) -> Keep:
    """The same with finer steps given back to single groups, for as long as that is worth it."""
    best = closeness.loss(keep)
    for _ in range(_MOST_STEPS):
        if closeness.over(keep) <= CLOSE:
            break
        tried = [more for more in _with_more(keep, ranked, rules, likes) if closeness.over(more) >= 1]
        if not tried:
            break
        losses = [closeness.loss(more) for more in tried]
        i = int(np.argmin(losses))
        if losses[i] >= best:
            break
        keep, best = tried[i], losses[i]
    return keep


def _with_more(keep: Keep, ranked: Scores, rules: Rules, likes: Likes) -> Iterator[Keep]:
    """Some units more in one group, up to a block, in steps of what its operators can load."""
    widths = np.bincount(rules.group[keep], minlength=rules.n_groups)
    for g in np.flatnonzero(likes.multiples < likes.blocks):
        gone = np.flatnonzero((rules.group == g) & rules.free & rules.alive & ~keep)
        step, block = int(likes.multiples[g]), int(likes.blocks[g])
        first = step - int(widths[g]) % step
        best = gone[np.argsort(ranked[gone], kind="stable")][::-1]
        for n in range(first, min(block, len(gone) + 1), step):
            more = keep.copy()
            more[best[:n]] = True
            yield more
