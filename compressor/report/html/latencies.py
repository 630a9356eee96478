"""The time of layers as bars beside each other; it must never hold how it was measured."""

from __future__ import annotations

from collections.abc import Mapping

from compressor.report.html.markup import Child, Markup, breakable
from compressor.report.html.page import Column, bars, table
from compressor.report.text import percent
from compressor.units import format_fewer, format_seconds

Seconds = Mapping[str, float]
"""By layer."""


def times_alone(times: Seconds) -> Markup:
    """Each layer's time and share, the longest bar the slowest layer."""
    total, most = sum(times.values()), max(times.values(), default=0.0)
    rows: list[tuple[Child, ...]] = [
        (name, _bar(name, [(seconds, "kept")], most), format_seconds(seconds), _share(seconds, total))
        for name, seconds in times.items()
    ]
    columns = (Column("Layer", "name"), Column("Latency", "bar"), Column(""), Column("Share"))
    return table(columns, rows, ("all", "", format_seconds(total), ""))


def times_beside(before: Seconds, after: Seconds, titles: tuple[str, str] = ("Before", "After")) -> Markup:
    """Each layer's time before (grey) and after (coloured) on one scale; what only one side has stands in its place.

    Rows in brackets (operators without weights) come last.
    """
    names = list(dict.fromkeys((*before, *after)))
    names.sort(key=lambda name: name.startswith("("))
    most = max((*before.values(), *after.values()), default=0.0)
    totals = sum(before.values()), sum(after.values())
    columns = (
        Column("Layer", "name"), Column("Latency", "bar"), Column(breakable(titles[0]), less=True),
        Column("Share", less=True), Column(breakable(titles[1])), Column("Share", less=True), Column("Speed-up"),
    )  # fmt: skip
    rows: list[tuple[Child, ...]] = []
    for name in names:
        pair = before.get(name), after.get(name)
        parts = [(seconds or 0.0, style) for seconds, style in zip(pair, ("dense", "kept"), strict=True)]
        cells = [
            text
            for seconds, total in zip(pair, totals, strict=True)
            for text in (_time(seconds), _share(seconds, total))
        ]
        rows.append((name, _bar(name, parts, most), *cells, format_fewer(*pair)))
    return table(columns, rows, ("all", "", _time(totals[0]), "", _time(totals[1]), "", format_fewer(*totals)))


def _bar(name: str, parts: list[tuple[float, str]], most: float) -> Markup:
    """The longer bar behind, so that a layer that became slower is seen."""
    told = f"{name}: {' -> '.join(_time(seconds) or 'none' for seconds, _ in parts)}"
    behind_first = sorted(parts, key=lambda part: part[0], reverse=True)
    return bars([(seconds / most if most else 0.0, style) for seconds, style in behind_first], told)


def _time(seconds: float | None) -> str:
    return format_seconds(seconds) if seconds else ""


def _share(seconds: float | None, total: float) -> str:
    return percent(seconds / total) if seconds and total else ""
