"""Line charts, points with names and intervals as SVG; it must never hold where the numbers come from.

Every chart is drawn 360 wide, so that its letters keep their size on a phone; wide pages set several side by side.
Colours are names of the page's style, so that light and dark are the page's matter. Each has a title and a
description for those who cannot see it, and each caller gives the same values as a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from compressor.report.html.labels import CHAR, place_names
from compressor.report.html.markup import Child, Markup, tag
from compressor.report.html.scale import Format, Scale, around, rounded, short, spread
from compressor.report.text import shorten

At: TypeAlias = tuple[float, float]

WIDTH = 360
_HEIGHT = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 18, 34
_GAP = 13.0
"""Least distance between two names beside each other."""


@dataclass(frozen=True)
class Axis:
    """What stands along an axis, how its numbers are written, and what it has to show.

    `whole` numbers only are written; it spans at least `least`, so that a small difference does not look like a large
    one; `room` is left at both ends, as a share of it. It ends at 0 where no value is below, and at `most`. Powers of
    two are written on a `binary` one.
    """

    label: str
    format: Format = short
    log: bool = False
    zero: bool = False
    ends: tuple[float, float] | None = None
    whole: bool = False
    least: float = 0.0
    room: float = 0.0
    most: float | None = None
    binary: bool = False

    def scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        low, high = self.ends or rounded(*around(values, zero=self.zero, least=self.least, room=self.room))
        if self.ends is None:
            low = max(low, 0.0) if all(value >= 0 for value in values if math.isfinite(value)) else low
            high = min(high, self.most) if self.most is not None else high
        log = self.log and all(value > 0 for value in values)
        if log and self.ends is None:
            finite = [value for value in values if math.isfinite(value)] or [1.0]
            low, high = min(finite) / 1.25, max(finite) * 1.25
        return Scale(low, high, start, end, log, self.whole, self.binary)


@dataclass(frozen=True)
class Line:
    """One line: its points, its name (written at its end when `named`), and its class, which is its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "s1"
    named: bool = True
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A hairline across the chart at `x` with a name on it."""

    x: float
    name: str


@dataclass(frozen=True)
class Point:
    """A point with its name; `told` is what it says beside its place, `radius` how large it is drawn."""

    name: str
    x: float
    y: float
    style: str = "s1"
    told: str = ""
    radius: float = 4.5


def picture(
    title: str, description: str, height: float, *parts: Child, width: float = WIDTH, at: At | None = None
) -> Markup:
    """The drawing with what a screen reader says about it; `at` a place it is part of another one."""
    named = (tag("title", title), tag("desc", description))
    place: dict[str, float] = (
        {} if at is None else {"x": at[0], "y": at[1], "width": float(width), "height": float(height)}
    )
    return tag("svg", *named, *parts, **place, viewBox=f"0 0 {width:g} {height:g}", role="img")


def line_chart(
    title: str, description: str, lines: Sequence[Line], x: Axis, y: Axis, marks: Sequence[Mark] = ()
) -> Markup:
    """Lines over x with their names at their ends, and hairlines where something begins."""
    named = [line for line in lines if line.named and line.points]
    room = min(max((len(line.name) for line in named), default=0) * CHAR + 8, 128) if named else 0
    frame = _Frame(
        x, y, [p[0] for line in lines for p in line.points], [p[1] for line in lines for p in line.points], room
    )
    drawn = [_drawn(line, frame) for line in lines]
    places = spread([frame.y(_last(line)[1]) for line in named], _GAP, _TOP + 4, frame.bottom)
    names = [
        tag(
            "text",
            _clipped(line.name, room),
            tag("title", line.name),
            x=frame.x(_last(line)[0]) + 6 if len(named) == 1 else frame.right + 6.0,
            y=place + 3.5,
            class_=f"name {line.style}",
        )
        for line, place in zip(named, places, strict=True)
    ]
    return picture(title, description, _HEIGHT, frame.axes(), _hairlines(marks, frame), drawn, names)


def _last(line: Line) -> tuple[float, float]:
    return next((p for p in reversed(line.points) if math.isfinite(p[1])), (line.points[-1][0], 0.0))


def _drawn(line: Line, frame: _Frame) -> Markup:
    """The line, broken where a value is no number."""
    runs: list[list[str]] = [[]]
    for px, py in line.points:
        if math.isfinite(py):
            runs[-1].append(f"{frame.x(px):.1f},{frame.y(py):.1f}")
        elif runs[-1]:
            runs.append([])
    drawn = [
        tag("polyline", points=" ".join(run), class_=f"line {line.style}")
        for run in runs
        if len(run) > 1 or (run and not line.dots)
    ]
    if line.dots:
        drawn += [
            tag(
                "circle",
                tag("title", f"{line.name}: {frame.y_axis.format(py)} at {frame.x_axis.format(px)}"),
                cx=frame.x(px), cy=frame.y(py), r=2.6, class_=f"dot {line.style}",
            )
            for px, py in line.points
            if math.isfinite(py)
        ]  # fmt: skip
    return tag("g", tag("title", line.name), drawn)


def _hairlines(marks: Sequence[Mark], frame: _Frame) -> list[Markup]:
    drawn: list[Markup] = []
    ends = [*(frame.x(mark.x) for mark in marks[1:]), *([frame.right] if marks else [])]
    for mark, end in zip(marks, ends, strict=True):
        at = frame.x(mark.x)
        drawn.append(tag("line", x1=at, x2=at, y1=_TOP - 15.0, y2=frame.bottom, class_="phase"))
        if end - at > 24:
            drawn.append(tag("text", _clipped(mark.name, end - at - 6), x=at + 4, y=_TOP - 7.0, class_="mark"))
    return drawn


def point_chart(
    title: str, description: str, points: Sequence[Point], x: Axis, y: Axis, *, joined: bool = True
) -> Markup:
    """Named points in their order, joined by a thin line where they are the way that one model took."""
    frame = _Frame(x, y, [p.x for p in points], [p.y for p in points], 0)
    way = " ".join(f"{frame.x(p.x):.1f},{frame.y(p.y):.1f}" for p in points)
    line = [tag("polyline", points=way, class_="way")] if joined else []
    places = [(frame.x(p.x), frame.y(p.y)) for p in points]
    within = (_LEFT + 2.0, float(_TOP), frame.right, frame.bottom)
    dots = [
        tag("circle", tag("title", ", ".join(filter(None, (f"{p.name}: {y.format(p.y)}", x.format(p.x), p.told)))),
            cx=px, cy=py, r=p.radius, class_=f"dot {p.style}")
        for p, (px, py) in sorted(zip(points, places, strict=True), key=lambda each: -each[0].radius)
    ]  # fmt: skip
    names = [
        tag("text", _clipped(label.text, 200), x=label.x, y=label.y, text_anchor=label.anchor,
            class_=f"name {points[label.point].style}")
        for label in place_names(places, [p.name for p in points], within, [p.radius for p in points])
    ]  # fmt: skip
    return picture(title, description, _HEIGHT, frame.axes(), *line, dots, names)


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval; `tail` a further end (a percentile), or None.

    The axis is scaled to values and intervals: one slow inference in ten does not press all others together. A tail
    that leaves the axis ends in an arrow.
    """

    name: str
    value: float
    low: float
    high: float
    told: str
    style: str = "s1"
    tail: float | None = None


def interval_chart(
    title: str,
    description: str,
    rows: Sequence[Interval],
    x: Axis,
    reference: float | None = None,
    *,
    legend: Sequence[tuple[str, str]] = (),
    at: At | None = None,
) -> Markup:
    """One row per item: its name, below it the interval as a bar, the value as a dot, its number at the right.

    `legend` are marks (dot, thick, thin, reference) and what each stands for.
    """
    height = interval_height(len(rows))
    values = [v for row in rows for v in (row.value, row.low, row.high)]
    values += [reference] if reference is not None else []
    scale = x.scale(values, 10.0, WIDTH - 12.0)
    bottom = height - _BOTTOM
    parts: list[Markup] = []
    for tick in scale.ticks(4):
        parts.append(tag("line", x1=scale(tick), x2=scale(tick), y1=4.0, y2=bottom, class_="grid"))
        parts.append(_tick(x.format(tick), scale(tick), bottom + 14, WIDTH - 12.0))
    for i, row in enumerate(rows):
        y = 34.0 * i + 26
        if reference is not None:
            equal = scale(reference)
            parts.append(tag("line", x1=equal, x2=equal, y1=y - 6, y2=y + 6, class_="reference"))
        parts += [
            tag("text", _clipped(row.name, 210), tag("title", row.name), x=10.0, y=y - 10, class_="row"),
            tag("text", row.told, x=WIDTH - 12.0, y=y - 10, text_anchor="end", class_=f"value {row.style}"),
            _tail(row, scale, y),
            tag("line", x1=scale(row.low), x2=scale(row.high), y1=y, y2=y, class_=f"thick {row.style}"),
            tag("circle", tag("title", f"{row.name}: {row.told}"), cx=scale(row.value), cy=y, r=4.5,
                class_=f"dot {row.style}"),
        ]  # fmt: skip
    label = tag("text", x.label, x=WIDTH - 12.0, y=height - 4, text_anchor="end", class_="axis")
    return picture(title, description, height, parts, label, _legend(legend, height - 7.5), at=at)


def _tail(row: Interval, scale: Scale, y: float) -> Markup:
    """The line to the tail; where that lies beyond the axis, an arrow at its end."""
    end = row.tail if row.tail is not None else row.high
    reaches = min(end, scale.high)
    line = tag("line", x1=scale(row.low), x2=scale(reaches), y1=y, y2=y, class_=f"thin {row.style}")
    if end <= scale.high:
        return line
    tip = scale(reaches)
    points = f"{tip - 5:.1f},{y - 4:.1f} {tip:.1f},{y:.1f} {tip - 5:.1f},{y + 4:.1f}"
    return tag("g", line, tag("polyline", points=points, class_=f"thin beyond {row.style}"))


def _legend(entries: Sequence[tuple[str, str]], y: float) -> Markup:
    """What the marks mean, from the left, on the line of the axis' name."""
    drawn: list[Child] = []
    x = 10.0
    for mark, text in entries:
        drawn += [_sign(mark, x, y), tag("text", text, x=x + 16, y=y + 3.5, class_="axis")]
        x += 16 + len(text) * CHAR + 10
    return tag("g", drawn, class_="legend")


def _sign(mark: str, x: float, y: float) -> Markup:
    if mark == "dot":
        return tag("circle", cx=x + 6, cy=y, r=4.0, class_="dot s5")
    if mark == "reference":
        return tag("line", x1=x + 6, x2=x + 6, y1=y - 5, y2=y + 5, class_="reference")
    return tag("line", x1=x + 1, x2=x + 11, y1=y, y2=y, class_=f"{mark} s5")


def interval_height(n_rows: int) -> float:
    """Height of a chart of so many intervals."""
    return 34.0 * n_rows + _BOTTOM + 6


class _Frame:
    """The rectangle of a chart, with its two scales."""

    def __init__(self, x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float], room: float) -> None:
        self.x_axis, self.y_axis = x, y
        self.right = WIDTH - _RIGHT - room
        self.bottom = float(_HEIGHT - _BOTTOM)
        self.x = x.scale(xs, float(_LEFT), self.right)
        self.y = y.scale(ys, self.bottom, float(_TOP))

    def axes(self) -> Iterable[Markup]:
        for tick in self.y.ticks(4):
            at = self.y(tick)
            yield tag("line", x1=float(_LEFT), x2=self.right, y1=at, y2=at, class_="grid")
            yield tag("text", self.y_axis.format(tick), x=_LEFT - 6.0, y=at + 3.5, text_anchor="end", class_="tick")
        for tick in self.x.ticks(max(2, int((self.right - _LEFT) / 56))):
            at = self.x(tick)
            yield tag("line", x1=at, x2=at, y1=self.bottom, y2=self.bottom + 4, class_="grid")
            yield _tick(self.x_axis.format(tick), at, self.bottom + 15, self.right)
        yield tag("text", self.x_axis.label, x=self.right, y=_HEIGHT - 5.0, text_anchor="end", class_="axis")


def _tick(text: str, x: float, y: float, right: float) -> Markup:
    """A number below its place; the last one ends where the axis does."""
    at_end = x + len(text) * CHAR / 2 > right + _RIGHT
    return tag("text", text, x=min(x, right + _RIGHT - 2) if at_end else x, y=y,
               text_anchor="end" if at_end else "middle", class_="tick")  # fmt: skip


def _clipped(text: str, width: float) -> str:
    """The text as far as it fits, both ends of it: they tell names apart."""
    return shorten(text, max(int(width / CHAR), 3))
