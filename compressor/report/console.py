"""Renderables onto a stream: coloured on a terminal, plain lines for everything else.

It must never hold what is rendered. In a pipe there is no colour, no box drawing and no trailing
blank, so that `grep`, `cut` and a golden file see what they expect.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from compressor.printable import printable
from compressor.terminal import is_coloured

WIDTH = 100
"""Columns of every table; on a terminal that has less its lines are broken by the terminal, prose at words."""


class SafeConsole(Console):
    """The only console of the house: what it is given to show may hold names out of a stranger's file.

    Text loses what a terminal would obey on its way through, whatever it stands in; colours and the movements of a
    progress bar are not text and are added later.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=printable(part.text))


def console_on(stream: TextIO) -> SafeConsole:
    """A console with the colours that the stream has and the columns of its terminal."""
    system: Literal["auto"] | None = "auto" if is_coloured(stream) else None
    return SafeConsole(file=stream, color_system=system, highlight=False, markup=False, emoji=False)


def print_to(stream: TextIO, body: RenderableType) -> None:
    """Prints in the manner that fits the stream."""
    if not stream.isatty():
        stream.write(plain_text(body))
        return
    console = console_on(stream)
    for part in _parts(body):
        console.print(part, width=console.width if isinstance(part, Text) else max(WIDTH, console.width), crop=False)


def _parts(body: RenderableType) -> Iterator[RenderableType]:
    """Prose and tables one by one: they do not take the same width."""
    if isinstance(body, Group):
        for part in body.renderables:
            yield from _parts(part)
    else:
        yield body


def plain_text(body: RenderableType) -> str:
    """The lines as a pipe gets them."""
    held = io.StringIO()
    console = SafeConsole(
        file=held,
        width=WIDTH,
        force_terminal=False,
        color_system=None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(body, soft_wrap=True)  # prose is not broken: a line is what grep finds
    return "".join(line.rstrip() + "\n" for line in held.getvalue().split("\n")[:-1])


def make_table(*columns: str, title: str | None = None) -> Table:
    """A table without borders. A column's name starts with `>` when it holds numbers, right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
    table.title_style = "bold"
    table.header_style = "bold"
    for column in columns:
        numbers = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if numbers else "left", no_wrap=True)
    return table


class _Facts(Table):
    """A table of two columns for whoever reads its cells; as text, lines that are never cut."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        names, told = (list(column.cells) for column in self.columns)
        width = max((len(str(name)) for name in names), default=0)
        yield Text("\n".join(f"{name!s:{width}}  {said}" for name, said in zip(names, told, strict=True)))


def facts(rows: Sequence[tuple[str, str]]) -> Table:
    """A line for each name and what is said of it, never cut: a terminal breaks what is too long, a pipe does not."""
    table = _Facts("", "", box=None, show_header=False)
    for name, said in rows:
        table.add_row(name, said)
    return table


def group(*parts: RenderableType | None) -> Group:
    """The parts below each other, an empty line between them; None is left out."""
    spaced: list[RenderableType] = []
    for part in (part for part in parts if part is not None):
        spaced += [Text(""), part] if spaced else [part]
    return Group(*spaced)


def lines(*texts: str | None, style: str = "") -> Text | None:
    """Lines that wrap at words; None when there are none."""
    kept = [text for text in texts if text]
    return Text("\n".join(kept), style=style) if kept else None
