"""Loads a user's object named as `package.module:attr` or `path/to/file.py:attr`; the only place where code of others
is imported, and not without the caller's word that the user named it.

It must never hold knowledge of what the object is for: callers check what they got.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from compressor.errors import CompressError, UntrustedCodeError, UsageError
from compressor.users_code import line_of

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def split_reference(ref: str) -> tuple[str, str] | None:
    """(`package.module` or `file.py`, attribute) of a reference, None when the text has not that form."""
    source, colon, attribute = ref.rpartition(":")
    if not colon or not _MODULE.fullmatch(attribute):
        return None
    if source.endswith(".py") or _MODULE.fullmatch(source):
        return source, attribute
    return None


def load_reference(
    ref: str, *, field: str, trust_code: bool, base: Path | None = None, error: type[CompressError] = UsageError
) -> object:
    """The object that `ref` names; this runs the user's code.

    A file is looked for below `base` first, then below the working directory. Modules are found as with
    `python -m`: the working directory counts (`base`, where one is given), for a file its own directory too. `field`
    says what the reference is for: data, task, arch. `trust_code` says that the user wrote it, not a file.

    Raises:  UntrustedCodeError without `trust_code`; `error` if the text is no reference, the file, module or attribute
             is missing, or importing raises.
    """
    parts = split_reference(ref)
    if parts is None:
        raise error(f"{ref}: not a reference; write package.module:name or path/to/file.py:name")
    if not trust_code:
        raise UntrustedCodeError(ref, field)
    source, attribute = parts
    if source.endswith(".py"):
        found: object = _import_file(_find_file(source, base, error), ref, error)
    else:
        found = _import_module(source, ref, base, error)
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as cause:
            raise error(f"{ref}: {source} has no `{name}`{_offer(found)}") from cause
    return found


def load_module(
    source: str, *, field: str, trust_code: bool, base: Path | None = None, error: type[CompressError] = UsageError
) -> ModuleType:
    """The module in `path/to/file.py` or named `package.module`; this runs the user's code, once in a process.

    Raises:  UntrustedCodeError without `trust_code`; `error` if there is none, or importing it raises.
    """
    if not trust_code:
        raise UntrustedCodeError(source, field)
    if not source.endswith(".py"):
        if not _MODULE.fullmatch(source):
            raise error(f"{source}: neither a Python file nor a module; write path/to/file.py or package.module")
        return _import_module(source, source, base, error)
    path = _find_file(source, base, error)
    return sys.modules.get(_name_of(path)) or _import_file(path, source, error)


def complete_reference(
    source: str,
    *,
    field: str,
    trust_code: bool,
    fits: Sequence[Callable[[object], bool]],
    base: Path | None = None,
    error: type[CompressError] = UsageError,
) -> str:
    """`net.py:Net` from `net.py` alone, where one thing that the file defines fits; this runs the user's code.

    `fits` are tried in their order until anything fits one of them.

    Raises:  as `load_reference`; `error` with the names there are if it is not one.
    """
    module = load_module(source, field=field, trust_code=trust_code, base=base, error=error)
    own = {name: value for name, value in vars(module).items() if _is_own(name, value, module)}
    for fit in fits:
        names = [name for name, value in own.items() if fit(value)]
        if len(names) == 1:
            return f"{source}:{names[0]}"
        if names:
            raise error(f"{source}: defines {', '.join(names[:8])}; say which one, as {source}:{names[0]}")
    known = f"it defines {', '.join(list(own)[:8])}" if own else "it defines nothing"
    raise error(f"{source}: nothing in it can be used as {field}; {known}")


def _is_own(name: str, value: object, module: ModuleType) -> bool:
    return not name.startswith("_") and getattr(value, "__module__", None) == module.__name__


def takes(function: object, arguments: Mapping[str, object]) -> bool:
    """Whether it can be called with these arguments by name and no others."""
    try:
        inspect.signature(function).bind(**arguments)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def resolve_path(text: str, base: Path | None) -> Path:
    """Absolute path: below `base` if it exists there, else below the working directory; `~` is expanded."""
    path = Path(text).expanduser()
    if base is not None and (base / path).exists():
        return (base / path).absolute()
    return path.absolute()


def _find_file(source: str, base: Path | None, error: type[CompressError]) -> Path:
    path = resolve_path(source, base)
    if not path.is_file():
        raise error(f"{source}: no such file (looked at {path})")
    return path


def _name_of(path: Path) -> str:
    """Made from the path so that two files called net.py do not meet in sys.modules, where dataclasses and pickle
    need to find the module."""
    return f"_compressor_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _import_file(path: Path, ref: str, error: type[CompressError]) -> ModuleType:
    name = _name_of(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"{ref}: {path} cannot be imported as Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _on_path(path.parent, Path.cwd()):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as cause:
        del sys.modules[name]
        raise error(f"{ref}: importing {path.name} raised {type(cause).__name__}: {cause}{_at(cause)}") from cause
    return module


def _import_module(name: str, ref: str, base: Path | None, error: type[CompressError]) -> ModuleType:
    try:
        with _on_path(base or Path.cwd()):
            importlib.invalidate_caches()
            return importlib.import_module(name)
    except ModuleNotFoundError as cause:
        if cause.name is not None and (name == cause.name or name.startswith(f"{cause.name}.")):
            raise error(
                f"{ref}: no module `{cause.name}` here or among the installed packages; "
                f"for a file write path/to/file.py:name"
            ) from cause
        raise error(f"{ref}: importing {name} raised ModuleNotFoundError: {cause}{_at(cause)}") from cause
    except (Exception, SystemExit) as cause:
        raise error(f"{ref}: importing {name} raised {type(cause).__name__}: {cause}{_at(cause)}") from cause


@contextlib.contextmanager
def _on_path(*directories: Path) -> Generator[None, None, None]:
    # A console script does not have the working directory on sys.path, unlike `python -m`.
    before = list(sys.path)
    sys.path[:0] = [str(directory) for directory in directories]
    try:
        yield
    finally:
        sys.path[:] = before


def _at(cause: BaseException) -> str:
    line = line_of(cause)
    return f"\nin {line}" if line else ""


def _offer(found: object) -> str:
    here = getattr(found, "__name__", "")
    names = [
        name
        for name, value in getattr(found, "__dict__", {}).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == here
    ]
    return f"; it defines {', '.join(names[:8])}" if names else ""
