"""The tables of `bench --profile`: where the time goes, layer by layer; it must never measure or compare models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table

from compressor.report.console import lines, make_table
from compressor.report.text import percent, plural, shorten, shorten_all
from compressor.units import format_fewer, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.timing import Profile

_ROWS = 30
_NAME = 34
_HEAD = 16


def profile_tables(profiles: Sequence[Profile], *, every_row: bool = False) -> Iterator[RenderableType | None]:
    """A table per configuration and model, beside the first model where there are several."""
    for (provider, threads, batch), same in groupby(profiles, key=lambda p: (p.provider, p.threads, p.batch)):
        first, *others = same
        yield lines(f"Where the time goes: {provider}, {plural(threads, 'thread')}, batch {batch}", style="bold")
        if not others:
            yield _alone(first, every_row)
        for other in others:
            yield _beside(first, other, every_row)


def row_times(profile: Profile) -> dict[str, float]:
    """Seconds by row: a layer's name, or the plural of an operator without weights, in order of appearance."""
    counts: dict[str, int] = {}
    sums: dict[tuple[bool, str], float] = {}
    for one in profile.operators:
        if one.layer is None:
            counts[one.operator] = counts.get(one.operator, 0) + 1
        key = (one.layer is None, one.layer or one.operator)
        sums[key] = sums.get(key, 0.0) + one.seconds
    ordered = sorted(sums, key=lambda key: key[0])  # layers first; sorting keeps the order within both
    return {f"({name})" if is_bare else name: sums[is_bare, name] for is_bare, name in ordered}


def _alone(profile: Profile, every_row: bool) -> Table:
    times = row_times(profile)
    table = make_table("Layer", f">{shorten(profile.subject.name, _HEAD)}", ">Share")
    shown, rest = _chosen(times, [times], every_row)
    short = shorten_all(shown, _NAME)
    for name in shown:
        table.add_row(short[name], format_seconds(times[name]), percent(times[name] / profile.seconds))
    if rest:
        other = sum(times[name] for name in rest)
        table.add_row(plural(len(rest), "other"), format_seconds(other), percent(other / profile.seconds))
    table.add_row("all", format_seconds(profile.seconds), "")
    return table


def _beside(first: Profile, other: Profile, every_row: bool) -> Table:
    a, b = row_times(first), row_times(other)
    names = dict.fromkeys([*(n for n in a if n[0] != "("), *(n for n in b if n[0] != "("), *a, *b])
    table = make_table(
        "Layer",
        f">{shorten(first.subject.name, _HEAD)}",
        ">Share",
        f">{shorten(other.subject.name, _HEAD)}",
        ">Share",
        ">Speed-up",
    )
    shown, rest = _chosen(dict.fromkeys(names, 0.0), [a, b], every_row)
    short = shorten_all(shown, _NAME)
    for name in shown:
        _add(table, short[name], a.get(name), b.get(name), first, other)
    if rest:
        sums = [sum(times.get(name, 0.0) for name in rest) for times in (a, b)]
        _add(table, plural(len(rest), "other"), sums[0], sums[1], first, other)
    _add(table, "all", first.seconds, other.seconds, first, other)
    return table


def _add(table: Table, name: str, a: float | None, b: float | None, first: Profile, other: Profile) -> None:
    cells = [*_time(a, first, name), *_time(b, other, name)]
    table.add_row(name, *cells, format_fewer(a, b))


def _time(seconds: float | None, profile: Profile, name: str) -> tuple[str, str]:
    if seconds is None:
        return "", ""
    return format_seconds(seconds), "" if name == "all" else percent(seconds / profile.seconds)


def _chosen(
    names: dict[str, float], profiles: Sequence[dict[str, float]], every_row: bool
) -> tuple[list[str], list[str]]:
    """The rows that take most time in any model, in the order of the network, and those left out."""
    if every_row or len(names) <= _ROWS:
        return list(names), []
    most = {name: max(times.get(name, 0.0) / max(sum(times.values()), 1e-12) for times in profiles) for name in names}
    kept = set(sorted(most, key=lambda name: most[name], reverse=True)[: _ROWS - 1])
    return [name for name in names if name in kept], [name for name in names if name not in kept]
