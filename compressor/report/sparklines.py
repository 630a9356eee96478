"""Numbers as one line of block characters, for tables; it must never hold a table or what the numbers mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NO_NUMBER = "·"


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """`[1, 0.9, 0.2]` on 0..1 -> `█▇▂`; what is no number is a dot, what lies outside is at the edge."""
    return "".join(_level(value, low, high) for value in values)


def _level(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return _NO_NUMBER
    if high <= low:
        return _LEVELS[-1]
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return _LEVELS[min(int(share * len(_LEVELS)), len(_LEVELS) - 1)]


def bar(share: float, width: int = 8) -> str:
    """A bar of `share` of `width` characters, in eighths: 0.5 of 4 -> `██`; a little is never nothing."""
    if math.isnan(share) or share <= 0:
        return ""
    n_eighths = max(1, round(min(share, 1.0) * width * 8))
    whole, rest = divmod(n_eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")
