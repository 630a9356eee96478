"""How a command that makes a model ends: written, held to its gates, drawn, told; it must never hold what was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.cli.html_report import write_report
from compressor.cli.session import Session
from compressor.cli.streams import Source, Target, Written, write_program

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.asking.gates import Gates
    from compressor.program import Program
    from compressor.report.html import About


@dataclass(frozen=True)
class Told:
    """What a command says in the end: a table, the same as JSON, and the page of --report."""

    table: Callable[[], RenderableType]
    body: Mapping[str, Any]
    page: Callable[[About], str]


@dataclass(frozen=True)
class Closing:
    """The end of one run over one MODEL."""

    options: Any
    session: Session
    source: Source

    def write(
        self, program: Program, target: Target, gates: Gates, values: Mapping[str, float | None],
        tell: Callable[[Written], Told],
    ) -> None:  # fmt: skip
        """Writes the program where `values` and its size meet the gates, then tells what `tell` makes of that.

        The resume point goes once the file is there, and stays where a gate was not met.

        Raises:  GateError naming what was not met; OutputError if a file cannot be written.
        """
        self.end(program, write_program(program, target, self.session, gates, values), tell)

    def end(self, program: Program, written: Written, tell: Callable[[Written], Told]) -> None:
        """The same where what was made of the program is written already.

        Raises:  as `write`.
        """
        point = self.session.resume_point
        if written.output is not None and point is not None and self.session.is_main:
            point.unlink(missing_ok=True)
        self.tell(program, written, tell(written))

    def tell(self, program: Program, written: Written, told: Told) -> None:
        """The page, the table or JSON, and the exit code of the gates.

        Raises:  GateError naming what was not met; OutputError if the page cannot be written.
        """
        write_report(
            self.options, self.session, told.page,
            model=self.source.name, sha256=self.source.sha256, output=written.output, record=program.record,
        )  # fmt: skip
        head = {"model": self.source.name, "output": written.output, "size_bytes": written.size_bytes}
        self.session.show(told.table, {**head, **told.body, **written.verdicts.body()})
        written.verdicts.enforce(self.session.resume_point)
