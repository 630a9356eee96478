"""The tables of `analyze` and `analyze --explain`; it must never hold how anything was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from compressor.report.console import group, lines, make_table
from compressor.report.sparklines import bar
from compressor.report.text import cut, metrics, percent, plural, shape, shorten, shorten_all, without_counts
from compressor.units import format_bytes, format_count, format_macs

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.analysis.findings import Analysis, BlockRow, Explanation, LayerRow, PinRow, RouterRow, UnitGroup

_ROWS = 15
"""Rows of the secondary tables unless every row is wanted."""
_BYTES_PER_WEIGHT = 4
BARS_WIDTH = 120
"""Columns of a terminal from which on there is room for bars."""


def analysis_table(
    found: Analysis, name: str, *, every_row: bool = False, with_bars: bool = False, scan: RenderableType | None = None
) -> RenderableType:
    """Headline, layers, what goes together, what is pinned and why, what is unknown; the table of a `scan`.

    `with_bars` draws parameters and MACs beside their numbers, which takes `BARS_WIDTH` columns in all.
    """
    limit = None if every_row else _ROWS
    return group(
        lines(*_headline(found, name)),
        _layers(found, with_bars),
        _groups(found.groups, limit),
        _blocks(found.blocks, limit),
        _routers(found.routers, limit),
        _pins(found.pins, limit),
        scan,
        lines(*_unknown(found.unknown_operators), without_counts(found.uncounted_operators)),
        lines(*(f"note: {note}" for note in found.notes)),
    )


def _headline(found: Analysis, name: str) -> list[str]:
    zeroed = f" ({format_count(found.n_zeroed)} zeroed)" if found.n_zeroed else ""
    size = format_bytes(found.n_params * _BYTES_PER_WEIGHT if found.n_bytes is None else found.n_bytes)
    share = percent(found.prunable_params / found.n_params) if found.n_params else "0 %"
    measured = metrics(found.metrics)
    return [
        shorten(name, 100),
        f"{format_count(found.n_params)} parameters{zeroed}, {size} as {found.stored_as}, "
        f"{format_macs(found.macs)} MACs, {format_macs(found.n_activations)} activations",
        f"{plural(found.n_units, 'unit')} can be removed; {share} of the parameters belong to one"
        + (f"; {measured}" if measured else ""),
    ]


def _layers(found: Analysis, with_bars: bool) -> Table:
    bars = ("",) if with_bars else ()
    table = make_table("Layer", "Kind", "Weight", "Output", ">Params", *bars, ">MACs", *bars, ">Zero", ">Prunable")
    params = max((row.params for row in found.layers), default=0)
    macs = max((row.macs for row in found.layers), default=0)
    names = shorten_all([row.name for row in found.layers], 26)
    for row in found.layers:
        *first, of_params, of_macs, zero, prunable = _layer_cells(row, names[row.name])
        drawn = [[bar(n / max(most, 1))] * with_bars for n, most in ((row.params, params), (row.macs, macs))]
        table.add_row(*first, of_params, *drawn[0], of_macs, *drawn[1], zero, prunable)
    zero = percent(found.n_zeroed / found.n_params) if found.n_params else "0 %"
    table.add_row("total", "", "", "", format_count(found.n_params), *bars, format_macs(found.macs), *bars, zero, "")
    return table


def _layer_cells(row: LayerRow, name: str) -> tuple[str, ...]:
    return (
        name,
        shorten(row.kind, 10),
        shorten(shape(row.weight_shape), 13),
        shorten(shape(row.output_shape), 14),
        format_count(row.params),
        format_macs(row.macs),
        percent(row.sparsity),
        f"{row.n_prunable}/{row.n_filters}",
    )


def _groups(groups: Sequence[UnitGroup], limit: int | None) -> RenderableType | None:
    if not groups:
        return None
    table = make_table(">Units", ">Params each", "Removed together from")
    for unit in groups[:limit]:
        table.add_row(format_count(unit.n_units), f"{unit.params_per_unit:,.0f}", _listed(unit.layers, 75))
    return group(table, _more(len(groups), limit, "group"))


def _blocks(blocks: Sequence[BlockRow], limit: int | None) -> RenderableType | None:
    """What `--pattern layer` may take, and what it may not, by reason."""
    free = [block for block in blocks if block.pinned is None]
    if not free:
        return None
    table = make_table("Residual block", ">Params", ">MACs", "With it go")
    names = shorten_all([block.name for block in free], 40)
    for block in free[:limit]:
        layers = _listed(block.layers, 50)
        table.add_row(names[block.name], format_count(block.params), format_macs(block.macs), layers)
    by_reason: dict[str, list[str]] = {}
    for block in blocks:
        if block.pinned is not None:
            by_reason.setdefault(block.pinned, []).append(block.name)
    stay = [f"stay: {_listed(names, 40)}: {reason}" for reason, names in list(by_reason.items())[:limit]]
    return group(table, _more(len(free), limit, "block"), lines(*stay))


def _routers(routers: Sequence[RouterRow], limit: int | None) -> RenderableType | None:
    """What `--pattern expert` may take, and what it may not."""
    if not routers:
        return None
    table = make_table("Router", ">Experts", ">Chosen", ">May go", ">Params each", "Of")
    names = shorten_all([router.name for router in routers], 40)
    for row in routers[:limit]:
        why = row.pinned or _listed(row.layers, 40)
        numbers = (str(row.n_experts), str(row.n_chosen), str(row.n_prunable), format_count(row.params))
        table.add_row(names[row.name], *numbers, why)
    return group(table, _more(len(routers), limit, "router"))


def _pins(pins: Sequence[PinRow], limit: int | None) -> RenderableType | None:
    """One row per reason: the places of one reason are one story."""
    if not pins:
        return None
    by_reason: dict[str, list[PinRow]] = {}
    for pin in pins:
        by_reason.setdefault(pin.reason, []).append(pin)
    table = make_table(">Pinned", "Because", "Where")
    for reason, rows in list(by_reason.items())[:limit]:
        n = sum(row.n_indices for row in rows)
        table.add_row(format_count(n), shorten(reason, 46), _listed([row.where for row in rows], 42))
    return group(table, _more(len(by_reason), limit, "reason"))


def _unknown(operators: Sequence[str]) -> list[str]:
    if not operators:
        return []
    return [f"no axis rule for {', '.join(operators)}: everything that reaches them stays whole"]


def _listed(names: Sequence[str], width: int) -> str:
    """As many names as fit, and how many more there are."""
    for n in range(len(names), 1, -1):
        rest = f" and {len(names) - n} more" if n < len(names) else ""
        if len(", ".join(names[:n]) + rest) <= width:
            return ", ".join(names[:n]) + rest
    rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return shorten(names[0], width - len(rest)) + rest if names else ""


def _more(n: int, limit: int | None, noun: str) -> RenderableType | None:
    hidden = n - limit if limit is not None else 0
    return lines(f"… and {plural(hidden, f'more {noun}')}; -v shows all") if hidden > 0 else None


def explanation_table(found: Explanation, *, every_row: bool = False) -> RenderableType:
    """What leaves with one filter, and what ties it."""
    chain = _chain(found.chain, None if every_row else _ROWS)
    title = f"filter {found.index} of {found.layer}"
    if found.pinned is not None:
        place = f"at {cut(found.pinned_at, 96)}" if found.pinned_at else None
        return group(lines(f"{title} is pinned: {found.pinned}", place), chain)
    table = make_table("Parameter", ">Axis", ">Positions", "Which")
    names = shorten_all([part.parameter for part in found.slices], 44)
    for part in found.slices:
        table.add_row(
            names[part.parameter],
            str(part.axis),
            format_count(len(part.positions)),
            _runs(part.positions),
        )
    head = f"{title}: {plural(found.params, 'parameter')} go together"
    return group(lines(head), table, chain)


def _chain(chain: Sequence[str], limit: int | None) -> RenderableType | None:
    if not chain:
        return None
    shown = [f"  {cut(link, 96)}" for link in chain[:limit]]
    return group(lines("tied by:", *shown), _more(len(chain), limit, "operator"))


def _runs(positions: Sequence[int]) -> str:
    """`0, 1, 2, 7` -> `0–2, 7`."""
    runs: list[list[int]] = []
    for position in sorted(positions):
        if runs and position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    texts = [str(first) if first == last else f"{first}–{last}" for first, last in runs]
    return _listed(texts, 36)
