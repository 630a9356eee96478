"""Results for other programs and for documents: CSV with raw numbers, Markdown with the tables as they are shown.

It must never round a number in CSV or hold what any command's result means.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compressor.errors import UsageError
from compressor.printable import printable
from compressor.report.console import plain_text
from compressor.report.jsonable import as_json, plain

SUMMARY = "summary"
"""The table of one row that holds everything that is a single number or word."""

_MAIN = {"analyze": "layers", "prune": "layers", "compact": "layers", "retrain": "stages", "bench": "timings"}
_MARKED = re.compile(r"([\\|*`<\[\]])")

Row = dict[str, Any]


def tables(body: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Every table in a result by its name: each list of objects, and the single values as `summary`.

    Columns have the names of the JSON object, nested ones joined by dots; a list inside a row is JSON text.
    """
    found: dict[str, list[Row]] = {}
    single: Row = {}
    _collect(plain(body), "", found, single)
    return {**found, SUMMARY: [single]}


def _collect(body: Mapping[str, Any], path: str, found: dict[str, list[Row]], single: Row) -> None:
    for key, value in body.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            _collect(value, name, found, single)
        elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            found[name] = [_flat(part) for part in value]
        else:
            single[name] = _cell(value)


def _flat(row: Mapping[str, Any], path: str = "") -> Row:
    flat: Row = {}
    for key, value in row.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            flat |= _flat(value, name)
        else:
            flat[name] = _cell(value)
    return flat


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return as_json(value)
    return printable(value) if isinstance(value, str) else value


def to_csv(command: str, body: Mapping[str, Any], name: str | None = None) -> str:
    """One table as CSV (RFC 4180 but for the line ends, which are the system's): the command's main one, or `name`.

    Units:   those of the JSON object: seconds, bytes, counts, shares. Nothing is an empty cell.
    Raises:  UsageError if the result has no table of that name.
    """
    known = tables(body)
    chosen = name or _MAIN.get(command, SUMMARY)
    if name is None and chosen not in known:  # the command was asked for something else, as `analyze --explain`
        chosen = max(known, key=lambda key: len(known[key]))
    if chosen not in known:
        raise UsageError(f"--table csv:{name}: this result has no such table; it has {', '.join(known)}")
    rows = known[chosen]
    held = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(held, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return held.getvalue()


def to_markdown(shown: RenderableType) -> str:
    """The tables and lines of a result in GitHub's Markdown, numbers right-aligned as on the terminal."""
    return "\n\n".join(part for part in _parts(shown) if part) + "\n"


def _parts(shown: RenderableType) -> Iterator[str]:
    if isinstance(shown, Group):
        for part in shown.renderables:
            yield from _parts(part)
    elif isinstance(shown, Table):
        yield _table(shown)
    elif isinstance(shown, Text):
        text = "  \n".join(_escaped(line) for line in shown.plain.splitlines())
        yield f"**{text}**" if str(shown.style) == "bold" and text else text
    else:
        yield f"```text\n{plain_text(shown)}```"


def _table(table: Table) -> str:
    head = [_escaped(_text(column.header)) for column in table.columns]
    line = ["--:" if column.justify == "right" else "---" for column in table.columns]
    cells = [[_escaped(_text(cell)) for cell in column.cells] for column in table.columns]
    rows = [_row(head), _row(line), *(_row(row) for row in zip(*cells, strict=True))]
    title = f"**{_escaped(_text(table.title))}**\n\n" if table.title else ""
    return title + "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(cell: RenderableType) -> str:
    if isinstance(cell, Text):
        return " ".join(cell.plain.split("\n"))
    return " ".join((cell if isinstance(cell, str) else plain_text(cell)).split("\n")).rstrip()


def _escaped(text: str) -> str:
    return _MARKED.sub(r"\\\1", printable(text))
