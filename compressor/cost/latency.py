"""Measured time as a cost: what can take the time of small programs, and tables of times over kept counts.

It must never measure anything itself: a stopwatch is handed down from `timing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compressor.errors import ModelError
from compressor.program import Program


class Stopwatch(Protocol):
    """Takes the time of programs in the runtime that will serve them."""

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        """Seconds of one run of each program, all measured side by side so that they can be compared."""
        ...


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of one layer on a grid of kept filters and kept input channels.

    Shapes:  filters (a,) and channels (b,), ascending; seconds (a, b)
    """

    filters: tuple[int, ...]
    channels: tuple[int, ...]
    seconds: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.seconds) & (self.seconds > 0)).all():
            raise ModelError("a stopwatch gave a time that is not above 0, or not a number")

    def at(self, n_filters: Any, n_channels: Any) -> Any:
        """Seconds at these widths: bilinear inside the grid, the border's outside of it.

        Shapes:  n_filters and n_channels alike, numbers or arrays -> the same
        """
        i, i_next, s = _place(self.filters, n_filters)
        j, j_next, t = _place(self.channels, n_channels)
        low = (1 - t) * self.seconds[i, j] + t * self.seconds[i, j_next]
        high = (1 - t) * self.seconds[i_next, j] + t * self.seconds[i_next, j_next]
        return (1 - s) * low + s * high


def _place(grid: tuple[int, ...], n: Any) -> tuple[Any, Any, Any]:
    """The grid's positions on both sides of n, and how far n lies on the way from the first to the second."""
    points = np.array(grid, dtype=np.float64)
    inside: NDArray[np.float64] = np.clip(n, points[0], points[-1])
    i: NDArray[np.intp] = np.clip(np.searchsorted(points, inside, side="right") - 1, 0, max(len(grid) - 2, 0))
    i_next = np.minimum(i + 1, len(grid) - 1)
    step = points[i_next] - points[i]
    return i, i_next, (inside - points[i]) / np.where(step > 0, step, 1.0)


def width_grid(size: int, multiple: int, n_points: int) -> tuple[int, ...]:
    """Widths to measure: the first multiples one by one, then ever wider steps up to the whole width.

    The kernels work in blocks of `multiple`, so a width in between takes about the time of the next multiple.
    """
    if size <= multiple:
        return tuple(dict.fromkeys((max(1, size // 2), size)))
    grown = np.geomspace(multiple, size, n_points)
    steps = {min(size, max(multiple, round(w / multiple) * multiple)) for w in grown}
    return tuple(sorted({*steps, size}))
