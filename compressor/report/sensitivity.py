"""The table of a sensitivity scan; it must never hold how the metric was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from compressor.report.console import group, lines, make_table
from compressor.report.sparklines import sparkline
from compressor.report.text import few, metric, plural, shorten

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.asking import Sensitivity

_COLUMNS = 6
"""Shares that fit beside the names; the line of blocks shows all of them."""


def sensitivity_table(scan: Sensitivity) -> RenderableType:
    """One row per layer: the metric at each removed share, as numbers and as a line that starts with nothing cut."""
    shares = typical_shares(scan)[:_COLUMNS]
    table = make_table("Layer", *(f">-{share * 100:.0f} %" for share in shares), "From 0 % on")
    low, high = value_range(scan)
    for layer, curve in scan.curves.items():
        values = {nearest(shares, share): metric(scan.metric, value) for share, value in curve}
        line = sparkline([scan.dense, *(value for _, value in curve)], low, high)
        table.add_row(shorten(layer, 36), *(values.get(i, "") for i in range(len(shares))), line)
    return group(
        lines(
            f"{scan.metric} when one layer alone loses that share ({scan.pattern}), without retraining; "
            f"{metric(scan.metric, scan.dense)} with nothing cut, on {plural(scan.n_samples, 'sample')}"
        ),
        table,
        lines(f"not reached in time: {few(scan.unmeasured)}" if scan.unmeasured else None),
    )


def merged(scan: Sensitivity) -> list[tuple[str, ...]]:
    """Layers by their curve, in their order: those that lose the same units share it point by point."""
    alike: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for layer, curve in scan.curves.items():
        alike.setdefault(tuple(curve), []).append(layer)
    return [tuple(layers) for layers in alike.values()]


def typical_shares(scan: Sensitivity) -> tuple[float, ...]:
    """The removed shares that stand for all curves: whole filters come close to what was asked, each layer in its way.

    Of the curves with the most points, the median at each.
    """
    n_points = max((len(curve) for curve in scan.curves.values()), default=0)
    whole = [curve for curve in scan.curves.values() if len(curve) == n_points]
    return tuple(median(curve[i][0] for curve in whole) for i in range(n_points))


def nearest(shares: Sequence[float], share: float) -> int:
    """Index of the share that is nearest to one."""
    return min(range(len(shares)), key=lambda i: abs(shares[i] - share))


def value_range(scan: Sensitivity) -> tuple[float, float]:
    """The smallest and the largest number of all curves, the dense network among them."""
    values = [scan.dense, *(value for curve in scan.curves.values() for _, value in curve if math.isfinite(value))]
    return min(values), max(values)
