"""A choice of units in widths that the runtime likes, as close to the budget as these come; it must never measure.

Whole blocks first. Where these overshoot, finer steps are tried, and what decides between them is the work that kernels
will do against how much more than asked goes: a narrow network must not lose a third more because its widths are few,
nor a wide one its speed for the last per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from compressor.axes import Ids, Keep
from compressor.errors import RatioError
from compressor.sparsity.allocation import Rules, choose_units
from compressor.sparsity.likes import Likes
from compressor.sparsity.scores import Scores

CLOSE = 1.02
"""Asked = got: so much more than asked is nothing to be mended."""

_MOST = 1.1
"""More than this is not cut for the sake of speed, where anything comes closer."""

_INHERENT = 1.5
"""A width of 24 that becomes one block of 16: so much less than scores alone would leave is rounding."""

_MOST_STEPS = 16


@dataclass(frozen=True)
class Closeness:
    """What a choice is worth: `cost` is what the budget counts, `work` what the kernels do, `group` of each unit."""

    cost: Callable[[Keep], float]
    work: Callable[[Keep], float]
    target: float
    group: Ids

    def over(self, keep: Keep) -> float:
        """How many times more than asked is gone."""
        return self.target / self.cost(keep)

    def loss(self, keep: Keep, exact: Keep) -> float:
        """What there is to do, times the squares of what is lost: beyond what was asked (10 % more cut must save 20 %),
        and in the width that has the least of what scores alone left it (`exact`), as far as blocks do not explain."""
        n_groups = int(self.group.max()) + 1
        wished, left = (np.bincount(self.group[choice], minlength=n_groups) for choice in (exact, keep))
        starved = float((wished / left).max()) / _INHERENT
        return self.work(keep) * max(self.over(keep), CLOSE) ** 2 * max(starved, 1.0) ** 2


def choose_liked(ranked: Scores, rules: Rules, likes: Likes, closeness: Closeness, dense: float, ratio: float) -> Keep:
    """The units to keep so that dense ÷ cost is at least `ratio`.

    Shapes:  ranked (n_units,) -> (n_units,)
    Raises:  RatioError with the largest feasible ratio if the floors forbid it.
    """
    if closeness.over(rules.alive) >= 1:
        return rules.alive  # it was reached before, in whatever widths: nothing is cut for their sake
    exact = choose_units(ranked, replace(rules, step=1), closeness.cost, dense, ratio)

    def loss(keep: Keep) -> float:
        return closeness.loss(keep, exact)

    found = [exact]
    trimmed = _without_remainders(ranked, rules, likes)
    for start in (rules,) if trimmed is None else (rules, trimmed):
        for steps in likes.levels(rules.sizes):
            with suppress(RatioError):  # too coarse for this ratio
                keep = choose_units(ranked, replace(start, step=steps), closeness.cost, dense, ratio, loss)
                found.append(_closer(keep, ranked, start, likes, closeness.over, loss))
    near = [keep for keep in found if closeness.over(keep) <= _MOST]
    return min(near or found, key=loss)


def _without_remainders(ranked: Scores, rules: Rules, likes: Likes) -> Rules | None:
    """The rules with the last units gone of every group that is no multiple as it is: 252 of 255, which are slow.

    None if all are multiples.
    """
    gone = ~rules.alive
    widths = np.bincount(rules.group[rules.alive], minlength=rules.n_groups)
    for g in np.flatnonzero((widths % likes.multiples > 0) & (widths > likes.blocks)):
        free = np.flatnonzero((rules.group == g) & rules.free & rules.alive)
        n = int(widths[g] % likes.multiples[g])
        if n < len(free):
            gone[free[np.argsort(ranked[free], kind="stable")][:n]] = True
    return None if (gone == ~rules.alive).all() else replace(rules, gone=gone)


def _closer(
    keep: Keep, ranked: Scores, rules: Rules, likes: Likes, over: Callable[[Keep], float], loss: Callable[[Keep], float]
) -> Keep:
    """The same with finer steps given back to single groups, for as long as that is worth it."""
    best = loss(keep)
    for _ in range(_MOST_STEPS):
        if over(keep) <= CLOSE:
            break
        tried = [more for more in _with_more(keep, ranked, rules, likes) if over(more) >= 1]
        if not tried:
            break
        losses = [loss(more) for more in tried]
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
