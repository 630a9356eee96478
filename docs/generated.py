"""The parts of pages that are made from the code; it must never hold how a part is made.

A part stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. `python -m docs.generated` writes all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MAKERS = (
    "make_rules_table",
    "make_onnx_table",
    "make_operators_table",
    "make_json_page",
    "make_transformers_table",
)
"""Modules of this folder; each has a `PART`."""


@dataclass(frozen=True)
class Part:
    """One generated part of one page."""

    page: str
    name: str
    make: Callable[[], str]

    def updated(self, text: str) -> str:
        """The page's text with the part as the code is now.

        Raises:  ValueError if the page lacks the part's markers.
        """
        begin, end = f"<!-- {self.name}: begin -->", f"<!-- {self.name}: end -->"
        head, found, rest = text.partition(begin)
        _, ended, tail = rest.partition(end)
        if not found or not ended:
            raise ValueError(f"{self.page} has no part {self.name}: it lacks {end if found else begin}")
        return f"{head}{begin}\n\n{self.make()}\n\n{end}{tail}"

    def read(self) -> str:
        return (HERE / self.page).read_text(encoding="utf-8")

    def write(self) -> None:
        (HERE / self.page).write_text(self.updated(self.read()), encoding="utf-8")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" if row else f"|{'---|' * len(heads)}" for row in ([*heads], [], *cells))


def first_line(function: object) -> str:
    """What a function's docstring says in its first line."""
    return (function.__doc__ or "").strip().splitlines()[0]


def by_function(entries: Mapping[Any, Any], modules: Sequence[Any]) -> dict[Any, list[Any]]:
    """The keys of a table by the function that they lead to, in the order of the modules and of their source."""
    places = {module.__name__: i for i, module in enumerate(modules)}
    own = [(key, function) for key, function in entries.items() if function.__module__ in places]
    own.sort(key=lambda pair: (places[pair[1].__module__], pair[1].__code__.co_firstlineno))
    found: dict[Any, list[Any]] = {}
    for key, function in own:
        found.setdefault(function, []).append(key)
    return found


def parts() -> list[Part]:
    """All of them."""
    return [importlib.import_module(f"docs.{maker}").PART for maker in MAKERS]


if __name__ == "__main__":
    for part in parts():
        part.write()
