"""Where names stand beside points so that none covers another; it must never hold how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHAR = 6.3
"""Width of a letter of the names, about."""
_HEIGHT = 12.0
_RADIUS = 4.5
"""That of an ordinary point."""
_NEAR = 7.0
"""Points that are nearer than this to each other are one point to the eye, and share one name."""


@dataclass(frozen=True)
class Placed:
    """A name at its place; `anchor` says which end of it is there."""

    text: str
    x: float
    y: float
    anchor: str
    point: int


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not apart and self.top < other.bottom and other.top < self.bottom


def place_names(
    places: Sequence[tuple[float, float]],
    names: Sequence[str],
    within: tuple[float, float, float, float],
    radii: Sequence[float] = (),
) -> list[Placed]:
    """One name for each spot: above its point, or below, right or left of it, where it meets nothing.

    Points at one spot have their names joined, in their order. `within` is left, top, right, bottom.
    Names keep clear of points with the given `radii`.
    """
    radii = radii or [_RADIUS] * len(places)
    spots: list[list[int]] = []
    for i, (x, y) in enumerate(places):
        near = (s for s in spots if abs(places[s[0]][0] - x) < _NEAR and abs(places[s[0]][1] - y) < _NEAR)
        spot = next(near, None)
        if spot is None:
            spots.append([i])
        else:
            spot.append(i)
    sizes = [radius + 0.5 for radius in radii]
    taken = [_Box(x - r, y - r, x + r, y + r) for (x, y), r in zip(places, sizes, strict=True)]
    placed: list[Placed] = []
    for spot in spots:
        x, y = places[spot[-1]]
        text = ", ".join(dict.fromkeys(names[i] for i in spot))
        options = _options(text, x, y, within, max(radii[i] for i in spot) - _RADIUS)
        free = ((label, box) for label, box in options if not any(box.meets(other) for other in taken))
        label, box = next(free, options[0])
        taken.append(box)
        placed.append(Placed(text, *label, spot[-1]))
    return placed


def _options(
    text: str, x: float, y: float, within: tuple[float, float, float, float], more: float
) -> list[tuple[tuple[float, float, str], _Box]]:
    """(x, y, anchor) and the box it takes, `more` further away than from an ordinary point; only those in the frame, if
    any are."""
    left, top, right, bottom = within
    width = len(text) * CHAR
    centre = min(max(x, left + width / 2), right - width / 2)
    wanted = [
        (centre, y - 9 - more, "middle"), (centre, y + 17 + more, "middle"), (x + 9 + more, y + 4, "start"),
        (x - 9 - more, y + 4, "end"), (centre, y - 22 - more, "middle"), (centre, y + 30 + more, "middle"),
    ]  # fmt: skip
    options = []
    for px, py, anchor in wanted:
        start = px - {"middle": width / 2, "start": 0.0, "end": width}[anchor]
        options.append(((px, py, anchor), _Box(start, py - _HEIGHT + 2, start + width, py + 2)))
    frame = _Box(left - 2, top - 12, right + 2, bottom)
    inside = [each for each in options if _lies_in(each[1], frame)]
    return inside or options


def _lies_in(box: _Box, frame: _Box) -> bool:
    return box.left >= frame.left and box.right <= frame.right and box.top >= frame.top and box.bottom <= frame.bottom
