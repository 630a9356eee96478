"""What a command tells its user: the result, notes, progress; it must never hold how a result looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from compressor.cli.origins import Origin, Origins
from compressor.cli.standard import writing_result
from compressor.launched import is_first_process
from compressor.printable import printable
from compressor.terminal import is_movable, prefix

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.cli.options import RunOptions
    from compressor.progress import Progress


class Session:
    """One run of one command.

    `told` is True once the result is on stdout, `resume_point` where an interrupted run can go on. Of several
    processes that train together only the first one speaks and writes. `resources` are let go when the run ends.
    """

    def __init__(self, command: str, options: RunOptions, origins: Origins | None = None) -> None:
        self.command = command
        self.options = options
        self._origins = origins or Origins()
        self.told = False
        self._noted: set[str] = set()
        self.resume_point: Path | None = None
        self.resources = ExitStack()
        self.preprocessing: dict[str, Any] = {}
        self.is_main = is_first_process()
        self.stdout_is_model = getattr(options, "output", None) == "-"

    def show(self, table: Callable[[], RenderableType], body: Mapping[str, Any]) -> None:
        """The result on stdout: JSON, CSV, Markdown, or a table, which moves to stderr for a model on stdout."""
        if not self.is_main:
            return
        printing = self.options.printing
        if printing.form != "text":
            from compressor.report.jsonable import to_json
            from compressor.report.tabular import to_csv, to_markdown

            text = {
                "json": lambda: to_json(f"compress.{self.command}/1", body) + "\n",
                "csv": lambda: to_csv(self.command, body, printing.name),
                "markdown": lambda: to_markdown(table()),
            }[printing.form]()
            self.told = True
            with writing_result():
                typer.echo(text, nl=False)
            return
        self.told = True
        if self.stdout_is_model and self.options.quiet:
            return
        from compressor.report.console import print_to

        shown = table()
        with writing_result():
            print_to(sys.stderr if self.stdout_is_model else sys.stdout, shown)

    def origin(self, option: str, value: str | None) -> Origin:
        """Who wrote the value of an option; what is None is what a model file remembers instead."""
        return self._origins.of(option, value)

    def note(self, text: str) -> None:
        """One line that the user should know but that stops nothing; once."""
        if self.is_main and not self.options.quiet and text not in self._noted:
            self._noted.add(text)
            typer.echo(f"{prefix('note:', 'yellow', sys.stderr)} {printable(text)}", err=True)

    @contextmanager
    def progress(self) -> Generator[Progress]:
        """Bars on a terminal, lines in a log, nothing with -q."""
        if self.options.quiet or not self.is_main:
            from compressor.progress import Silent

            yield Silent()
            return
        from compressor.report.progress import open_progress

        with open_progress(sys.stderr) as progress:
            yield progress

    @contextmanager
    def working(self, what: str) -> Generator[None]:
        """A sign of life on a terminal for work of some seconds that has no steps to count; silent in a log."""
        if self.options.quiet or not self.is_main or not is_movable(sys.stderr):
            yield
            return
        from compressor.report.console import console_on

        with console_on(sys.stderr).status(f"{what} …"):
            yield

    def load_torch(self) -> None:
        """Imports PyTorch, which takes seconds, under a line that says so on a terminal."""
        told = not self.options.quiet and self.is_main and "torch" not in sys.modules and sys.stderr.isatty()
        erased = is_movable(sys.stderr)
        if told:
            sys.stderr.write("loading PyTorch …" + ("" if erased else "\n"))
            sys.stderr.flush()
        try:
            import torch  # noqa: F401
        finally:
            if told and erased:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()
