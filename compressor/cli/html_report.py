"""`--report out.html` of every command: the option, the early refusal, the writing; it must never hold how it looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from compressor.cli.options import OverwriteOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import refuse_taken
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.program import Record
    from compressor.report.html import About

_RUN = "The run"


@dataclass(frozen=True, kw_only=True)
class ReportOptions(OverwriteOptions):
    """Where the picture of the result goes."""

    report: Annotated[
        str | None,
        option(metavar="FILE", panel=_RUN, help="Write the result as one self-contained HTML page too."),
    ] = None


def check_report(options: ReportOptions) -> None:
    """Refuses now what could not be written after an hour's work.

    Raises:  UsageError for standard output; OutputError if the file is there or cannot be.
    """
    if options.report is None:
        return
    if options.report == "-":
        raise UsageError("--report -: the page needs a file of its own; name one, as --report report.html")
    output = getattr(options, "output", None)
    if output is not None and Path(output).resolve() == Path(options.report).resolve():
        raise UsageError(f"--report {options.report}: is the output file too; give the page another name")
    refuse_taken(Path(options.report), options.force, "--report")


def write_report(
    options: Any,
    session: Session,
    page: Callable[[About], str],
    *,
    model: str | Sequence[str],
    sha256: str | None = None,
    output: str | None = None,
    record: Record | None = None,
) -> None:
    """Writes the page that `page` draws, where --report says; without --report nothing happens.

    Raises:  OutputError if the file cannot be written.
    """
    if options.report is None or not session.is_main:
        return
    from compressor.atomic import atomic_write
    from compressor.cli.provenance import canonical_options, versions
    from compressor.report.html import About

    about = About(
        command=session.command,
        options=canonical_options(options),
        seed=options.seed,
        model=model if isinstance(model, str) else ", ".join(model),
        models=() if isinstance(model, str) else tuple(model),
        where={name: ref for name in ("data", "task") if (ref := _short(getattr(options, name, None)))},
        sha256=sha256,
        output=output,
        versions=versions(),
        record=_with_short_paths(record),
    )
    text = page(about)
    with atomic_write(options.report, force=options.force) as path:
        path.write_text(text, encoding="utf-8")
    session.note(f"report: {options.report}")


def _with_short_paths(record: Record | None) -> Record | None:
    """The record with its data named from here, as a checkpoint keeps it: a page that is passed on tells no home."""
    if record is None:
        return record
    return replace(record, data=_short(record.data), task=_short(record.task))


def _short(ref: str | None) -> str | None:
    """A reference with its path from here."""
    if ref is None:
        return None
    from compressor.data import relocate

    return relocate(ref, start=Path.cwd())
