"""How many weights, or groups of them, each layer keeps under a budget; it must never know which ones those are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from compressor.errors import RatioError
from compressor.sparsity.projection import Tally

_HALVINGS = 60

CountAt = Callable[[float], list[int]]
"""Counts of all layers at a level from 0 (the least) to 1 (everything), never falling."""


def global_counts(tallies: Sequence[Tally]) -> CountAt:
    """One threshold on the LAMP score over all layers: those lose most whose small weights carry least."""
    finite = [float((tally.rests + tally.counts)[tally.rests < math.inf].max(initial=1.0)) for tally in tallies]
    ceiling = math.log(max(finite) + 1)

    def at(level: float) -> list[int]:
        if level >= 1:
            return [tally.n for tally in tallies]
        x = math.exp(level * ceiling)
        return [min(max(tally.count(x), 1), tally.n) for tally in tallies]

    return at


def uniform_counts(sizes: Sequence[int]) -> CountAt:
    """The same share of every layer."""

    def at(level: float) -> list[int]:
        return [min(max(math.floor(level * size), 1), size) for size in sizes]

    return at


def share_budget(counts_at: CountAt, prices: Sequence[float], budget: float) -> list[int]:
    """Counts that cost at most `budget` and as much of it as the prices allow; every layer keeps at least one.

    Shapes:  prices: what one entry of each layer costs
    Raises:  RatioError without a message if not even one entry of every layer is within the budget; the caller knows
             what was asked.
    """
    budget *= 1 + 1e-12

    def cost(counts: Sequence[int]) -> float:
        return sum(price * count for price, count in zip(prices, counts, strict=True))

    low, high = 0.0, 1.0
    most, counts = counts_at(high), counts_at(low)
    if cost(counts) > budget:
        raise RatioError
    if cost(most) <= budget:
        return most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = counts_at(middle)
        low, high = (middle, high) if cost(tried) <= budget else (low, middle)
    counts, next_more = counts_at(low), counts_at(high)
    # What a whole step of the threshold would overshoot is given out entry by entry, first where it was due.
    for limit in (next_more, most):
        for i, price in enumerate(prices):
            fits = math.floor((budget - cost(counts)) / price) if price > 0 else limit[i]
            counts[i] += max(min(limit[i] - counts[i], fits), 0)
    return counts
