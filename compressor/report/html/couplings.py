"""Which layers share a width, as a picture of tracks; it must never hold how couplings are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressor.report.html.charts import WIDTH, picture
from compressor.report.html.markup import Markup, tag
from compressor.report.text import shorten

if TYPE_CHECKING:
    from compressor.analysis.findings import LayerRow, UnitGroup

_TRACKS = 32
"""Tracks beside each other that can still be told apart on a phone."""
_ROWS = 90
_TOP = 30.0
_NAMES = 138.0
_NAME_LENGTH = 20


def couplings(groups: Sequence[UnitGroup], layers: Sequence[LayerRow]) -> tuple[Markup, int, int] | None:
    """Layers from input to output as rows, each width as a track with a dot on every layer that has it.

    Also how many tracks and rows are shown; norms have the width of what they normalise and are left out.
    """
    order = [row.name for row in layers if not row.kind.endswith("norm")]
    place = {name: i for i, name in enumerate(dict.fromkeys(order))}
    tracks = [(group, sorted({place[n] for n in group.layers if n in place})) for group in groups]
    tracks = [(group, rows) for group, rows in tracks if rows][:_TRACKS]
    if not tracks:
        return None
    names = list(place)
    used = sorted({row for _, rows in tracks for row in rows})[:_ROWS]
    at = {row: i for i, row in enumerate(used)}
    tracks.sort(key=lambda track: (track[1][0], track[1][-1]))
    gap = min(34.0, (WIDTH - _NAMES - 20) / max(len(tracks), 1))
    row_height = 24.0 if len(used) <= 12 else 15.0
    parts: list[Markup] = []
    for i, row in enumerate(used):
        y = _TOP + row_height * i
        parts.append(tag("line", x1=_NAMES, x2=WIDTH - 4.0, y1=y, y2=y, class_="grid"))
        parts.append(
            tag("text", shorten(names[row], _NAME_LENGTH), tag("title", names[row]), x=_NAMES - 8, y=y + 3.5,
                text_anchor="end", class_="row")
        )  # fmt: skip
    for i, (group, rows) in enumerate(tracks):
        ys = [_TOP + row_height * at[row] for row in rows if row in at]
        parts.append(_track(group, ys, _NAMES + 14 + gap * i, gap))
    height = _TOP + row_height * len(used) - 4
    told = f"{len(tracks)} widths over {len(used)} layers; " + "; ".join(
        f"{group.n_units} units in {len(group.layers)} layers" for group, _ in tracks[:6]
    )
    return picture("Which layers share a width", told, height, parts), len(tracks), len(used)


def _track(group: UnitGroup, ys: Sequence[float], x: float, gap: float) -> Markup:
    if not ys:
        return Markup()
    style = "s2" if len(ys) > 2 else "s1"
    told = f"{group.n_units} units of {group.params_per_unit:,.0f} parameters: {', '.join(group.layers)}"
    label = (
        tag("text", str(group.n_units), x=x, y=ys[0] - 8, text_anchor="middle", class_=f"name {style}")
        if gap >= 18
        else None
    )
    return tag(
        "g",
        tag("title", told),
        tag("line", x1=x, x2=x, y1=ys[0], y2=ys[-1], class_=f"line {style}"),
        [tag("circle", cx=x, cy=y, r=min(3.6, gap / 2.6), class_=f"dot {style}") for y in ys],
        label,
    )
