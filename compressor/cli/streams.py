"""Where models come from and go to: paths, `-`, default names; it must never hold a file format."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from compressor import atomic
from compressor.atomic import atomic_write
from compressor.cli import standard
from compressor.cli.reservation import reserved
from compressor.errors import DataError, OutputError, UntrustedCodeError, UsageError
from compressor.reference import load_module

if TYPE_CHECKING:
    from torch import nn

    from compressor.asking.gates import Gates, Verdicts
    from compressor.cli.options import ModelOptions, RunOptions, SourceOptions
    from compressor.cli.session import Session
    from compressor.data import DataSource, Task
    from compressor.program import Program

STREAM = "-"
AGREEMENT = "agreement"
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
    def opened(self) -> Generator[Path | BinaryIO]:
        """What the writers of formats take: the path, or a binary stream onto standard output.

        Not `sys.stdout.buffer`: under PYTHONUNBUFFERED that is the raw file, which writes a part and says
        nothing when the reader of a pipe goes away.
        """
        if self.path is not None:
            yield self.path
            return
        standard.output().flush()
        try:
            with open(standard.output().fileno(), "wb", closefd=False) as stream:
                yield stream
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}; the model was not written whole") from error


def read_source(
    options: SourceOptions, model: str, session: Session, *, like: Program | None = None,
    on_module: Callable[[nn.Module], None] | None = None,
) -> Source:  # fmt: skip
    """The program in `model`, which is a path, `-` or `init`; if it holds weights alone, they are of the architecture
    and take the inputs that `like` remembers, where options say nothing else. `on_module` as of `formats.load`.

    Raises:  UsageError for a terminal as input; ModelError and relatives from the formats.
    """
    from compressor import formats
    from compressor.models import parse_arch_args
    from compressor.program import parse_input

    for plugin in options.plugin or ():
        load_module(plugin, field="plugin", **session.origin("plugin", plugin)._asdict())
    inputs = [parse_input(text, position) for position, text in enumerate(options.input or ())]
    until = tuple(options.until or ())
    arch, arguments = options.arch, parse_arch_args(options.arch_arg or ())
    if like is not None and holds_weights_alone(model):
        arguments = arguments if arch is not None else {**like.record.arch_args, **arguments}
        until = until or like.record.until
        arch, inputs = arch or like.record.arch, inputs or list(like.inputs)
    content, sha256 = _content(model)
    with session.working(f"reading {model}"):
        program = formats.load(
            content,
            arch=arch,
            arch_args=arguments,
            inputs=inputs,
            data=options.data,
            task=options.task,
            trust_pickle=options.trust_pickle,
            seed=options.seed,
            weights=options.weights,
            until=until,
            trust_data=session.origin("data", options.data).trust_code,
            on_module=on_module,
            **session.origin("arch", options.arch)._asdict(),
        )
    if not program.record.steps:  # a checkpoint of ours told its notes when it was made
        for note in program.record.notes:
            session.note(note)
    return Source("standard input" if model == STREAM else model, program, sha256)


def holds_weights_alone(model: str) -> bool:
    """Whether a file may be a state dict: neither ONNX, which is a network whole, nor a folder."""
    from compressor import formats

    return Path(model).is_file() and not formats.is_onnx(model)


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
        if standard.output().isatty():
            raise UsageError("-o - would write a binary file to the terminal; pipe it or give -o FILE")
        return Target(None, options.force)
    path = Path(options.output or default_name(options, suffix))
    refuse_taken(path, options.force)
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
    path = path if path.name else path.resolve()
    stem = path.name.removesuffix(path.suffix)
    if suffix.count(".") > 1:
        stem = next((stem.removesuffix(verb) for verb in _VERBS if stem.endswith(verb)), stem)
    return str(path.with_name(stem + suffix))


def _plain(arch: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in arch)


def refuse_taken(path: Path, force: bool, option: str = "-o") -> None:
    """Raises:  OutputError if a file could not be written there; the message names the option that says where."""
    atomic.refuse_taken(path, force, option)
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no directory {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: cannot write into {path.parent}; choose another place with {option}")


def choose_resume_point(target: Target, options: Any, session: Session) -> Path | None:
    """Where this run may be resumed from, held for this run; one that is there already is never overwritten silently.

    Raises:  UsageError if there is one and neither --resume nor --force says what to do, none to resume, or another
             run is at work for the same output.
    """
    point = target.resume_point
    if point is None:
        if options.resume:
            raise UsageError("--resume needs an output file: a run that writes to standard output leaves none")
        return None
    session.resources.enter_context(reserved(point, is_main=session.is_main))
    if options.resume and not point.exists():
        raise UsageError(f"--resume: there is no {point}; start without --resume")
    if point.exists() and not options.resume:
        if not options.force:
            raise UsageError(f"{point}: left by an interrupted run; continue with --resume, or drop it with --force")
        point.unlink()
    return point


class Written(NamedTuple):
    """Where a model went and how large it is: nowhere, both None, where a gate was not met."""

    output: str | None
    size_bytes: int | None
    verdicts: Verdicts


class _NotMet(Exception):
    """Ends the writing of a file that must not appear."""


def write_program(
    program: Program, target: Target, session: Session, gates: Gates, values: Mapping[str, float | None]
) -> Written:
    """Writes the checkpoint, if `values` and its own size meet the gates; of several processes the first one does.

    Raises:  OutputError if the file cannot be written.
    """
    from compressor import formats

    if session.preprocessing:
        program = program.replace(record=replace(program.record, preprocessing=session.preprocessing))
    if not session.is_main:
        gates = replace(gates, gates=tuple(gate for gate in gates.gates if gate.metric != "size"))
        return Written(target.name, None, gates.judge(values))
    if target.path is None:
        content = formats.to_bytes(program)
        size, verdicts = len(content), gates.judge({**values, "size": len(content)})
        if verdicts.passed:
            with target.opened() as stream:
                assert not isinstance(stream, Path)
                stream.write(content)
        return Written(target.name, size, verdicts) if verdicts.passed else Written(None, None, verdicts)
    size, verdicts = 0, gates.judge(values)
    with suppress(_NotMet), atomic_write(target.path, force=target.force) as temporary:
        formats.save(program, temporary, force=True)
        size = temporary.stat().st_size
        verdicts = gates.judge({**values, "size": size})
        if not verdicts.passed:
            raise _NotMet
    return Written(target.name, size, verdicts) if verdicts.passed else Written(None, None, verdicts)


def known_data(
    program: Program,
    options: SourceOptions,
    session: Session,
    *,
    needed_for: str | None = None,
    gates: Gates | None = None,
    dense: Program | None = None,
) -> tuple[DataSource | None, Task]:
    """The data set and task given or remembered, tried on the first samples.

    Data that is only remembered and cannot be opened is a note, unless it is needed. Where there are no labels the
    answers of `dense` take their place, and agreement with it is what is measured; a gate may ask for it beside labels.

    Raises:  UsageError if there is none and it is needed, or a gate is about what the task does not measure;
             UntrustedCodeError if the task, or data that is needed, is code and was only remembered;
             DataError if it cannot be opened or does not fit.
    """
    from compressor.analysis.first_batch import first_metrics
    from compressor.data import Wanted, fitted, open_data, open_task
    from compressor.data.text import TextSource
    from compressor.data.tokens import tokenized
    from compressor.formats.text_form import task_of, text_form
    from compressor.training import is_measurable

    ref = program.record.data
    asked = program.record.task or task_of(program, ref)
    task = open_task(asked, **session.origin("task", options.task)._asdict())
    if ref is None:
        if needed_for is not None:
            raise UsageError(f"no data: {needed_for} needs a data set; give it with --data, e.g. --data mnist:DIR")
        return None, task
    try:
        data = open_data(ref, **session.origin("data", options.data)._asdict())
    except (DataError, UntrustedCodeError) as error:
        if needed_for is not None or options.data is not None:
            raise
        session.note(f"not measured on data: {error}")
        return None, task
    if isinstance(data, TextSource):
        data = tokenized(data, text_form(program, task.name))
    data = fitted(data, [Wanted(s.name, s.shape[1:], s.torch_dtype.is_floating_point) for s in program.inputs])
    data, task = _with_answers(data, task, dense, session, gates)
    if not is_measurable(data, task):
        return data, task
    measured = first_metrics(program.module, program.inputs, data, task)
    session.preprocessing = getattr(data, "preprocessing", {})
    if options.said.get("augment", False) and not data.augments:
        session.note(f"--augment changes nothing: {data.ref} does not say how its samples may be changed")
    if gates is not None:
        gates.refuse_unmeasured(measured)
    return data, task


def _with_answers(
    data: DataSource, task: Task, dense: Program | None, session: Session, gates: Gates | None
) -> tuple[DataSource, Task]:
    from compressor.training import is_measurable, with_agreement, with_targets

    if dense is None:
        return data, task
    teacher = dense.clone().module
    if not is_measurable(data, task):
        session.note(f"{data.ref}: has no labels; what the dense model answers takes their place")
        data, taught = with_targets(data, task, teacher)
        return data, taught or task
    if gates is not None and any(gate.metric == AGREEMENT for gate in gates.gates):
        return with_agreement(data, task, teacher)
    return data, task
