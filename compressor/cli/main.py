"""The `compress` program: the app, and the one place where a failure becomes a message and an exit code.

It must never hold what a command does, and imports nothing heavier than typer.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Literal, NoReturn

import typer

from compressor.atomic import FULL
from compressor.cli import commands, standard
from compressor.cli.options import RunOptions
from compressor.cli.origins import Origins
from compressor.cli.session import Session
from compressor.cli.signals import Terminated, end_in_order
from compressor.errors import CompressError, OutputError, UntrustedCodeError, UsageError, named_line
from compressor.nearest import did_you_mean
from compressor.printable import printable
from compressor.terminal import prefix
from compressor.users_code import is_users_fault, line_of

_NOT_ONE_OF = re.compile(r"'(?P<given>[^']*)' is not one of (?P<known>.*)")
INTERRUPTED = 130
BROKEN_PIPE = 1

_TOP = """Prune a trained network with structure, retrain, shrink, export to ONNX, and prove it is faster.

\b
  compress analyze model.pt
  compress prune   model.pt --method admm --pattern channel --ratio 13x
  compress retrain model.pruned.pt
  compress compact model.retrained.pt
  compress export  model.compact.pt -o model.onnx
  compress bench   model.pt model.onnx --provider cpu

""" + "\n\n".join(
    (
        "Results go to standard output, progress and errors to standard error. MODEL and -o may be '-'.",
        "Options that are not given come from COMPRESS_NAME variables, then from compress.toml or the "
        "tool.compress table of pyproject.toml, found from here upwards.",
        "Exit codes: 0 done, 1 could not do it, 2 usage or config, 3 a gate failed, 130 interrupted, 143 and 129 ended "
        "by SIGTERM and SIGHUP.",
    )
)
"""Paragraphs are one line each: on a terminal typer keeps the line breaks inside them."""


def run() -> NoReturn:
    """The console script: `main`, on a clean set of warnings and streams that can print every character."""
    try:
        standard.open_closed()
    except UsageError as error:
        sys.exit(_Ending("compress", (), wants_json=False).of(error))
    end_in_order()
    warnings.simplefilter("ignore")  # libraries warn their developers; what users must know comes as notes
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code and lets no exception out."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    ending = _Ending("compress", given, wants_json=_asks_for_json(given))
    try:
        code = build_app(ending)(given, prog_name="compress", standalone_mode=False)
        standard.flush()
        return int(code or 0)
    except typer.TyperException as error:
        return ending.refused(error)
    except BaseException as error:
        return ending.of(error)


def build_app(ending: _Ending) -> typer.Typer:
    """All commands; what they raise is told by `ending`."""
    settings = {"help_option_names": ["-h", "--help"], "obj": commands.option_table}
    app = typer.Typer(rich_markup_mode=help_markup(), context_settings=settings)

    @app.callback(help=_TOP)
    def top(
        version: bool = typer.Option(
            False, "--version", "-V", is_eager=True, callback=_version, help="Show the version."
        ),
    ) -> None:
        return None

    for name, function in commands.command_functions().items():
        commands.add(app, name, function, ending.around)

    @app.command("env")
    def env(as_json: bool = typer.Option(False, "--json", help="One JSON object.")) -> None:
        """Versions and settings that a bug report should say."""
        from compressor.cli import env as found

        typer.echo(printable(found.as_json(found.environment()) if as_json else found.as_text(found.environment())))

    return app


def help_markup() -> Literal["rich"] | None:
    """Boxes for eyes; what goes through a pipe must stay greppable."""
    return "rich" if sys.stdout.isatty() else None


def _version(wanted: bool) -> None:
    if wanted:
        from compressor import __version__

        typer.echo(f"compress {__version__}")
        raise typer.Exit


def _asks_for_json(arguments: Sequence[str]) -> bool:
    return "--json" in arguments or os.environ.get("COMPRESS_JSON", "").lower() in ("1", "true", "yes", "on")


class _Ending:
    """How a run ends: message on stderr, error object on stdout when JSON was asked for, exit code."""

    def __init__(self, command: str, words: Sequence[str], wants_json: bool) -> None:
        self._command = command
        self._words = words
        self._wants_json = wants_json
        self._session: Session | None = None

    def around(
        self, name: str, function: commands.CommandFunction, options: RunOptions, origins: Origins | None = None
    ) -> None:
        """Calls the command; its exceptions leave as typer.Exit, which typer passes through."""
        self._command = f"compress {name}"
        self._wants_json = self._wants_json or options.json
        origins = origins or Origins()
        self._session = Session(name, options, origins)
        try:
            _ = options.printing  # an unknown form is refused before the work, not after it
            with standard.for_the_result(), self._session.resources:
                function(options, self._session)
            standard.flush()
        except BaseException as error:
            told = origins.refusal(error, self._words) if isinstance(error, UntrustedCodeError) else None
            raise typer.Exit(self.of(told or error)) from error

    def of(self, error: BaseException) -> int:
        """The exit code of an exception, its message told."""
        if isinstance(error, (typer.Exit, SystemExit)):
            code = error.exit_code if isinstance(error, typer.Exit) else error.code
            return code if isinstance(code, int) else 1
        if isinstance(error, BrokenPipeError):
            return _leave_the_pipe()
        if isinstance(error, (KeyboardInterrupt, typer.Abort)):
            return self.failed("Interrupted", f"interrupted{self._where_to_resume()}", INTERRUPTED)
        if isinstance(error, Terminated):
            return self.failed("Terminated", f"ended by {error}{self._where_to_resume()}", error.exit_code)
        if isinstance(error, CompressError):
            return self.failed(type(error).__name__, str(error), error.exit_code)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            message = "out of memory; try a smaller --batch-size, or another --device"
            return self.failed("OutOfMemory", message, 1)
        if isinstance(error, OSError) and error.strerror:  # a path too long, a disk that fails: no bug of ours
            where = str(error.filename)[-200:] if error.filename is not None else "the system"
            advice = "; free some space" if error.errno in FULL else ""
            return self.failed("OutputError", f"{where}: {error.strerror}{advice}", 1)
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's own words on the CPU
            return self.failed(
                "OutOfMemory", "out of memory; the model or its values are too large for this machine", 1
            )
        return self._bug(error)

    def refused(self, error: typer.TyperException) -> int:
        """The exit code of a command line that typer could not read."""
        self._command = getattr(getattr(error, "ctx", None), "command_path", self._command)
        return self.failed("UsageError", f"{_refusal(error)}\nsee {self._command} --help", error.exit_code)

    def failed(self, kind: str, message: str, code: int) -> int:
        """Tells the message and gives the code back."""
        message = printable(message)
        with contextlib.suppress(OSError):  # a terminal that was closed has no reader either
            typer.echo(f"{prefix(f'{self._command}:', 'red', sys.stderr)} {message}", err=True)
        if self._wants_json and not (self._session and self._session.told):
            from compressor.report.jsonable import to_json

            body = {"error": kind, "message": message, "exit_code": code}
            try:
                with standard.writing_result():
                    typer.echo(to_json("compress.error/1", body))
            except BrokenPipeError:
                return _leave_the_pipe()
            except OutputError:  # perhaps what is told of here; the message went to the other stream
                return code
        return code

    def _bug(self, error: BaseException) -> int:
        verbose = self._session is not None and self._session.options.verbose
        if verbose or os.environ.get("COMPRESS_DEBUG"):
            typer.echo(printable("".join(traceback.format_exception(error))), err=True)
        found = named_line(error, 300)
        if is_users_fault(error):
            message = f"code of yours that is called here raised {found}\nin {line_of(error)}"
            return self.failed(type(error).__name__, f"{message}\nmend it there; -v shows the way to it", 1)
        message = f"this is a bug in compress: {found}\nsee where with -v or COMPRESS_DEBUG=1, and report it"
        return self.failed(type(error).__name__, message, 1)

    def _where_to_resume(self) -> str:
        point = self._session.resume_point if self._session else None
        if point is None or not point.exists():
            return "; nothing was written"
        return f"; the last finished epoch is in {point}\ncontinue with the same command and --resume"


def _refusal(error: typer.TyperException) -> str:
    """What typer says, without pydantic's words, and with what may have been meant, the likest first."""
    message = error.format_message().replace("Value error, ", "")
    if possible := getattr(error, "possibilities", None):
        named = str(getattr(error, "option_name", ""))
        hint = did_you_mean(named, possible)
        return f"no such option: {named}{f'; {hint}' if hint else ''}"
    if found := _NOT_ONE_OF.search(message):
        hint = did_you_mean(found["given"], re.findall(r"'([^']*)'", found["known"]), most=1)
        return f"{message.rstrip('.')}; {hint}" if hint else message
    return message


def _leave_the_pipe() -> int:
    """The reader has gone: nobody to tell."""
    standard.drop()
    return BROKEN_PIPE
