"""The widths of a whole network before and after, as one picture; it must never hold why they are what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.report.html.charts import picture
from compressor.report.html.markup import Markup, tag
from compressor.report.html.scale import Format, Scale, around, rounded, share, short
from compressor.report.text import percent, shorten
from compressor.units import format_count

WIDTHS_LEAD = "Every layer that multiplies, from the input to the output."

_WIDTH, _HEIGHT = 720.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 8.0, 14.0, 36.0
_WIDEST = 34.0
"""A bar is no wider than this, however few layers there are."""
_NAME_LENGTH = 22


@dataclass(frozen=True)
class Width:
    """Filters of one layer (or weights, where single weights go), before and after."""

    name: str
    before: int
    after: int


def widths_figure(rows: Sequence[Width], noun: str = "filters") -> Markup | None:
    """A bar for each layer from input to output, grey what it had and coloured what stays; the sum is in the caption.

    Weights of layers differ by a thousand times, so theirs are shares of each layer; None without any layer.
    """
    if not rows:
        return None
    before, after = sum(row.before for row in rows), sum(row.after for row in rows)
    total = f"{format_count(after)} of {format_count(before)} {noun} stay, {percent(after / max(before, 1))}"
    legend = (tag("i", class_="key dense"), "before ", tag("i", class_="key kept"), f"after · {total}")
    drawing = _drawing(rows, noun, total)
    caption = tag("figcaption", "Widths of the whole network", tag("span", "  ", legend))
    return tag("figure", caption, drawing, class_="wide widths")


def _drawing(rows: Sequence[Width], noun: str, total: str) -> Markup:
    by_share = noun == "weights"
    pairs = [_bar_of(row, by_share) for row in rows]
    top = 1.0 if by_share else rounded(*around([before for before, _ in pairs], zero=True))[1]
    scale = Scale(0.0, top, _HEIGHT - _BOTTOM, _TOP, whole=not by_share)
    parts = [_grid(scale, share if by_share else short)]
    slot = (_WIDTH - _LEFT - _RIGHT) / len(rows)
    for i, (row, heights) in enumerate(zip(rows, pairs, strict=True)):
        told = tag("title", f"{row.name}: {format_count(row.before)} -> {format_count(row.after)} {noun}")
        middle, width = _LEFT + slot * (i + 0.5), min(slot * 0.82, _WIDEST)
        bars = [
            tag("rect", x=middle - width / 2, y=scale(height), width=width, height=scale(0.0) - scale(height),
                class_=style)
            for height, style in zip(heights, ("dense", "kept"), strict=True)
        ]  # fmt: skip
        parts.append(tag("g", told, bars))
    parts.append(_ends(rows))
    return picture("Widths of the whole network", f"{len(rows)} layers; {total}", _HEIGHT, *parts, width=_WIDTH)


def _bar_of(row: Width, by_share: bool) -> tuple[float, float]:
    return (1.0, row.after / max(row.before, 1)) if by_share else (float(row.before), float(row.after))


def _grid(scale: Scale, written: Format) -> Markup:
    lines = [
        (
            tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=scale(tick), y2=scale(tick), class_="grid"),
            tag("text", written(tick), x=_LEFT - 6, y=scale(tick) + 4, text_anchor="end", class_="tick"),
        )
        for tick in scale.ticks(4)
    ]
    return tag("g", lines)


def _ends(rows: Sequence[Width]) -> Markup:
    """The first and the last name below their ends: where the others stand, their bars tell."""
    y = _HEIGHT - _BOTTOM + 24
    first = tag("text", shorten(rows[0].name, _NAME_LENGTH), x=_LEFT, y=y, class_="tick")
    last = tag("text", shorten(rows[-1].name, _NAME_LENGTH), x=_WIDTH - _RIGHT, y=y, text_anchor="end", class_="tick")
    return tag("g", first, last if len(rows) > 1 else None)
