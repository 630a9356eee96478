"""The lines of `compact` about layers with columns of zeros; it must never hold how a form was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compressor.report.console import lines
from compressor.report.text import plural, shape
from compressor.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.compaction.lowering_result import LoweredLayer


def lowering_lines(layers: Sequence[LoweredLayer], limit: int | None) -> RenderableType | None:
    """Each layer's columns, the form it got, and what every form would have taken; None without such a layer."""
    hidden = len(layers) - len(layers[:limit])
    more = f"… and {hidden} more layers with columns of zeros; -v shows all" if hidden else None
    return lines(*(_line(layer) for layer in layers[:limit]), more, _kept_zeros(layers))


def _kept_zeros(layers: Sequence[LoweredLayer]) -> str | None:
    """What the file holds in zeros because that is faster, and how to have it smaller."""
    slower = [layer for layer in layers if layer.form == "dense" and layer.seconds]
    if not slower:
        return None
    zeros = sum(round(math.prod(layer.after) * (1 - layer.n_used / layer.n_columns)) for layer in slower)
    return (
        f"{plural(len(slower), 'layer')} kept {format_count(zeros)} zeros because dense is faster; "
        "--lowering columns leaves them out"
    )


def _line(layer: LoweredLayer) -> str:
    became = "stays dense" if layer.form == "dense" else f"becomes {layer.form} {shape(layer.after)}"
    why = f"µs: {_times(layer.seconds)}" if layer.seconds else (layer.reason or "asked for, not measured")
    return f"{layer.name}: {layer.n_used:,} of {layer.n_columns:,} columns used, {became} ({why})"


def _times(seconds: Mapping[str, float]) -> str:
    """Fastest first."""
    return " · ".join(f"{name} {1e6 * s:,.0f}" for name, s in sorted(seconds.items(), key=lambda item: item[1]))
