"""Where models come from and go to: paths, `-`, default names; it must never hold a file format."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from compressor.errors import DataError, OutputError, UsageError

if TYPE_CHECKING:
    from compressor.cli.options import ModelOptions, RunOptions, SourceOptions
    from compressor.cli.session import Session
    from compressor.data import DataSource, Task
    from compressor.program import Program

STREAM = "-"
INITIAL = "init"
_VERBS = (".pruned", ".retrained", ".compact")
"""What earlier commands put into a name; the next one puts its own there instead."""


@dataclass(frozen=True)
class Source:
    """An opened MODEL; `sha256` is that of its bytes, None for initial weights."""

    name: str
    program: Program
    sha256: str | None


@dataclass(frozen=True)
class Target:
    """Where a result goes; `path` is None for standard output."""

    path: Path | None
    force: bool

    @property
    def name(self) -> str:
        return STREAM if self.path is None else str(self.path)

    @property
    def resume_point(self) -> Path | None:
        """Where an interrupted run leaves what it has; a stream has no such place."""
        return None if self.path is None else self.path.with_name(self.path.name + ".resume")

    @contextmanager
    def opened(self) -> Iterator[Path | BinaryIO]:
        """What the writers of formats take: the path, or a binary stream onto standard output.

        Not `sys.stdout.buffer`: under PYTHONUNBUFFERED that is the raw file, which writes a part and says
        nothing when the reader of a pipe goes away.
        """
        if self.path is not None:
            yield self.path
            return
        sys.stdout.flush()
        with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
            yield stream


def read_source(options: SourceOptions, model: str, session: Session) -> Source:
    """The program in `model`, which is a path, `-` or `init`.

    Raises:  UsageError for a terminal as input; ModelError and relatives from the formats.
    """
    from compressor import formats
    from compressor.models import parse_arch_args
    from compressor.program import parse_input

    inputs = [parse_input(text, position) for position, text in enumerate(options.input or ())]
    arguments = parse_arch_args(options.arch_arg or ())
    content, sha256 = _content(model)
    with session.working(f"reading {model}"):
        program = formats.load(
            content,
            arch=options.arch,
            arch_args=arguments,
            inputs=inputs,
            data=options.data,
            task=options.task,
            trust_pickle=options.trust_pickle,
            seed=options.seed,
        )
    if not program.record.steps:  # a checkpoint of ours told its notes when it was made
        for note in program.record.notes:
            session.note(note)
    return Source("standard input" if model == STREAM else model, program, sha256)


def device_name(options: RunOptions) -> str:
    """The device that --device means here.

    Raises:  ProviderError if it is not there.
    """
    from compressor.training import resolve_device

    return str(resolve_device(options.device))


def stdin_bytes() -> bytes:
    """All of standard input.

    Raises:  UsageError if it is a terminal: nobody types a checkpoint.
    """
    if sys.stdin.isatty():
        raise UsageError("MODEL - reads standard input, which is a terminal here; pipe a model in or name a file")
    return sys.stdin.buffer.read()


def _content(model: str) -> tuple[str | io.BytesIO, str | None]:
    from compressor import formats

    if model == INITIAL:
        return model, None
    if model == STREAM:
        read = stdin_bytes()
        return io.BytesIO(read), hashlib.sha256(read).hexdigest()
    return model, formats.file_sha256(model) if Path(model).is_file() else None


def choose_target(options: Any, suffix: str) -> Target:
    """The output of a command, from -o or from MODEL's name, refused now rather than after an hour's work.

    `suffix` is what the command puts into the name, e.g. `.pruned.pt`.

    Raises:  UsageError if there is no name, or stdout cannot take a model; OutputError as `atomic_write`.
    """
    if options.output == STREAM:
        if options.json:
            raise UsageError("-o - and --json both want standard output; write the model to a file with -o FILE")
        if sys.stdout.isatty():
            raise UsageError("-o - would write a binary file to the terminal; pipe it or give -o FILE")
        return Target(None, options.force)
    path = Path(options.output or default_name(options, suffix))
    _refuse(path, options.force)
    return Target(path, options.force)


def default_name(options: ModelOptions, suffix: str) -> str:
    """`model.pruned.pt` and `.compact.pt` -> `model.compact.pt`; a model without a name of its own has none.

    Raises:  UsageError for standard input.
    """
    if options.model == STREAM:
        raise UsageError("a model from standard input has no name to derive the output's from; give -o FILE or -o -")
    if options.model == INITIAL:
        return _plain(options.arch or INITIAL) + suffix
    path = Path(options.model)
    stem = path.name.removesuffix(path.suffix)
    if suffix.count(".") > 1:
        stem = next((stem.removesuffix(verb) for verb in _VERBS if stem.endswith(verb)), stem)
    return str(path.with_name(stem + suffix))


def _plain(arch: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in arch)


def _refuse(path: Path, force: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; give the name of a file with -o")
    if path.exists() and not force:
        raise OutputError(f"{path}: exists already; overwrite it with --force or choose another path with -o")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no directory {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: cannot write into {path.parent}; choose another place with -o")


def choose_resume_point(target: Target, options: Any) -> Path | None:
    """Where this run may be resumed from; a point that is there already is never overwritten silently.

    Raises:  UsageError if there is one and neither --resume nor --force says what to do, or none to resume.
    """
    point = target.resume_point
    if point is None:
        if options.resume:
            raise UsageError("--resume needs an output file: a run that writes to standard output leaves none")
        return None
    if options.resume and not point.exists():
        raise UsageError(f"--resume: there is no {point}; start without --resume")
    if point.exists() and not options.resume:
        if not options.force:
            raise UsageError(f"{point}: left by an interrupted run; continue with --resume, or drop it with --force")
        point.unlink()
    return point


def write_program(program: Program, target: Target, session: Session) -> int | None:
    """Writes the checkpoint and gives its size in bytes; None for standard output.

    Raises:  OutputError if the file cannot be written.
    """
    from compressor import formats

    if not session.is_main:
        return None
    with target.opened() as stream:
        formats.save(program, stream, force=target.force)
    return None if target.path is None else target.path.stat().st_size


def known_data(
    program: Program, options: SourceOptions, session: Session, *, needed_for: str | None = None
) -> tuple[DataSource | None, Task]:
    """The data set and task given or remembered.

    Data that is only remembered and cannot be opened is a note, unless it is needed.

    Raises:  UsageError if there is none and it is needed; DataError if it cannot be opened or does not fit.
    """
    from compressor.data import open_data, open_task, runs_code

    _refuse_remembered_code(program, options)
    task = open_task(program.record.task)
    ref = program.record.data
    if ref is not None and options.data is None and runs_code(ref):
        told = f"the checkpoint remembers its data as code ({ref}); repeat it as --data {ref} to run that code"
        if needed_for is not None:
            raise UsageError(told)
        session.note(f"not measured on data: {told}")
        return None, task
    if ref is None:
        if needed_for is not None:
            raise UsageError(f"no data: {needed_for} needs a data set; give it with --data, e.g. --data mnist:DIR")
        return None, task
    try:
        data = open_data(ref)
    except DataError as error:
        if needed_for is not None or options.data is not None:
            raise
        session.note(f"not measured on data: {error}")
        return None, task
    _check_fit(program, data)
    return data, task


def _refuse_remembered_code(program: Program, options: SourceOptions) -> None:
    """A checkpoint from a stranger must not choose which code runs: only what the user names himself is imported.

    Raises:  UsageError if the remembered task is code and was not repeated.
    """
    from compressor.data import runs_code

    task = program.record.task
    if task is not None and options.task is None and runs_code(task):
        raise UsageError(
            f"the checkpoint remembers its task as code ({task}); repeat it as --task {task} to run that code"
        )


def _check_fit(program: Program, data: DataSource) -> None:
    wanted = tuple(tuple(spec.shape[1:]) for spec in program.inputs)
    given = tuple(tuple(shape) for shape in data.input_shapes)
    if given and len(given) == len(wanted) and given != wanted:
        raise DataError(
            f"{data.ref}: gives inputs of {_shape(given)} but the model takes {_shape(wanted)}; "
            "give the data set that it was trained on with --data"
        )


def _shape(shapes: tuple[tuple[int | None, ...], ...]) -> str:
    return " and ".join("×".join(map(str, shape)) for shape in shapes)
