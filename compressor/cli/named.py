"""What a command line names, looked at before torch is imported: seconds are not spent to say that a file is not there.

It must never open or run any of it, nor refuse what a later step would take.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compressor.architectures import LIBRARIES, check_architecture, parse_arch_args
from compressor.cli.session import Session
from compressor.data_reference import KINDS_OF_FILES, read_data_reference
from compressor.errors import DataError, ModelError, UsageError
from compressor.input_text import read_input
from compressor.model_file import open_model_file
from compressor.reference import resolve_path, split_reference

_NO_FILES = ("-", "init")


def check_named(options: Any, session: Session) -> None:
    """Torch is loaded, when every file and every text that the options name can be what it is given as.

    Raises:  ModelError for a model that is not there; DataError for data; UsageError for a text of no known form.
    """
    for model in _models(options):
        _check_model(model)
    if "init" in _models(options) and options.arch is None:
        raise UsageError("init: needs --arch, to know which architecture's initial weights are meant")
    for position, text in enumerate(options.input or ()):
        read_input(text, position)
    parse_arch_args(options.arch_arg or ())
    if options.arch is not None:
        check_architecture(options.arch)
        if options.arch.partition(":")[0] not in LIBRARIES:
            _check_code("arch", options.arch, session, ModelError)
    if options.data is not None:
        found = read_data_reference(options.data, session.origin("data", options.data).base)
        if found.form == "kind" and found.path is not None and not found.path.is_dir():
            if found.kind not in KINDS_OF_FILES:
                raise DataError(f"{options.data}: no directory {found.path}")
            if not found.path.is_file():
                raise DataError(f"{options.data}: no file or directory {found.path}")
        if found.form == "function":
            _check_code("data", options.data, session, DataError)
    if options.task is not None:
        _check_code("task", options.task, session, DataError)
    for plugin in options.plugin or ():
        _check_code("plugin", plugin, session, UsageError)
    session.load_torch()


def _models(options: Any) -> list[str]:
    named = [*getattr(options, "models", ()), *(getattr(options, name, None) for name in ("model", "teacher", "adopt"))]
    return [model for model in named if model is not None]


def _check_model(model: str) -> None:
    if model in _NO_FILES or (Path(model).is_dir() and (Path(model) / "config.json").is_file()):
        return
    if Path(model).exists() and not Path(model).is_file() and not Path(model).is_dir():
        return  # a pipe: whoever opens it reads it
    open_model_file(Path(model)).close()


def _check_code(field: str, ref: str, session: Session, error: type[Any]) -> None:
    """Looks for the file of a reference that may run; what may not is refused in other words."""
    origin = session.origin(field, ref)
    for source in _sources(ref) if origin.trust_code else ():
        path = resolve_path(source, origin.base)
        if not path.is_file():
            raise error(f"{ref}: no such file (looked at {path})")


def _sources(ref: str) -> Iterator[str]:
    source = (split_reference(ref) or (ref, ""))[0]
    if source.endswith(".py"):
        yield source
