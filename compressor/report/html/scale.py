"""From numbers to places on an axis, and which numbers to write beside it; it must never hold a drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Numbers `low` to `high` on places `start` to `end`; logarithmic if `log` and both are above 0."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False
    binary: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._on(self.low), self._on(self.high)
        share = (self._on(value) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def _on(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    def ticks(self, n: int = 4) -> tuple[float, ...]:
        """About `n` round numbers within the scale."""
        if self.binary and self.log:
            return _binary_ticks(self.low, self.high, n)
        ticks = _log_ticks(self.low, self.high, n) if self.log else _round_ticks(self.low, self.high, n)
        if self.whole and any(tick != round(tick) for tick in ticks):
            step = max(1, math.ceil((self.high - self.low) / n))
            return tuple(float(i) for i in range(math.ceil(self.low), math.floor(self.high) + 1, step))
        return ticks


def around(
    values: Sequence[float], *, zero: bool = False, room: float = 0.0, least: float = 0.0
) -> tuple[float, float]:
    """Ends of an axis that holds the finite ones of `values`, with some room; from 0 if asked, `least` long."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    missing = max(least - (high - low), 0.0)
    low, high = low - missing / 2, high + missing / 2
    span = high - low or abs(high) or 1.0
    return low - (0.0 if low == 0 else room * span), high + (0.0 if high == 0 else room * span)


def rounded(low: float, high: float, n: int = 4) -> tuple[float, float]:
    """The ends moved outwards to round numbers, so that the outermost lines of a grid are at them."""
    ticks = _round_ticks(low, high, n)
    if len(ticks) < 2:
        return low, high
    step = ticks[1] - ticks[0]
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _round_ticks(low: float, high: float, n: int) -> tuple[float, ...]:
    if not high > low:
        return (low,)
    rough = (high - low) / max(n, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(i * step for i in range(first, last + 1))


def _log_ticks(low: float, high: float, n: int) -> tuple[float, ...]:
    """Powers of ten; with 2 and 5 between them where the axis is short."""
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = tuple(f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high)
        if len(ticks) >= min(n, 3):
            return ticks[:: max(1, len(ticks) // (n + 1))] if len(ticks) > 2 * n else ticks
    return _round_ticks(low, high, n)


def _binary_ticks(low: float, high: float, n: int) -> tuple[float, ...]:
    """Powers of two, every k-th of them."""
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    return tuple(2.0**p for p in powers[:: max(1, math.ceil(len(powers) / (n + 1)))])


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones that lie at least `gap` apart within `low`..`high`, in the given order of items."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = [min(max(wanted[i], low), high) for i in order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    over = places[-1] - high if places else 0.0
    if over > 0:
        places[-1] = high
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - gap)
    result = [0.0] * len(wanted)
    for place, i in zip(places, order, strict=True):
        result[i] = place
    return result


Format = Callable[[float], str]


def short(value: float) -> str:
    """`12500` -> `12.5k`, `0.00125` -> `0.00125`: what fits beside an axis."""
    if value == 0:
        return "0"
    for step, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= step:
            return f"{value / step:.3g}{suffix}"
    return f"{value:.3g}"


def share(value: float) -> str:
    """`0.975` -> `97.5 %`."""
    return f"{value * 100:.4g} %"
