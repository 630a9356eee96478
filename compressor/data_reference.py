"""The text of --data: which kind of data it names, and where; it must never open any."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from compressor.errors import DataError
from compressor.nearest import did_you_mean, nearest
from compressor.reference import resolve_path, split_reference

DATA_KINDS = ("mnist", "fashion-mnist", "cifar10", "text", "images")
"""What may stand in front of a directory."""
KINDS_OF_FILES = frozenset({"text", "images"})
"""Of these, what may be one file."""

Form = Literal["kind", "folder", "file", "function"]


class DataReference(NamedTuple):
    """`kind` is one of `DATA_KINDS` for that form; `path` is absolute, None for a function."""

    form: Form
    kind: str
    path: Path | None


def read_data_reference(ref: str, base: Path | None) -> DataReference:
    """What `ref` names; a relative path is looked for below `base` first, then below the working directory.

    Raises:  DataError if nothing of that name is there; the message says what was looked for.
    """
    kind, colon, rest = ref.partition(":")
    if colon and kind in DATA_KINDS:
        if not rest:
            raise DataError(f"{ref}: no directory; write {kind}:DIR")
        return DataReference("kind", kind, resolve_path(rest, base))
    try:
        path = resolve_path(ref, base)
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError) as cause:  # too long, a null character, a user without a home
        raise DataError(f"{ref[:60]}: is not the path of a data set: {cause.__class__.__name__}") from cause
    if is_folder or is_file:
        return DataReference("folder" if is_folder else "file", "", path)
    if split_reference(ref) is not None and not _is_mistyped_kind(ref):
        return DataReference("function", "", None)
    raise DataError(_unknown(ref, path))


def _is_mistyped_kind(ref: str) -> bool:
    # `mnst:data` has the form of module:function; a module of that name wins when it exists.
    head = ref.partition(":")[0]
    if head.endswith(".py") or not nearest(head, DATA_KINDS, cutoff=0.6):
        return False
    here = Path(f"{head}.py").is_file() or Path(head).is_dir()
    return "." not in head and not here and find_spec(head) is None


def _unknown(ref: str, path: Path) -> str:
    head, colon, _ = ref.partition(":")
    if not colon and head in DATA_KINDS:
        return f"{ref}: no directory; write {head}:DIR"
    if colon and re.fullmatch(r"[\w-]+", head):
        hint = did_you_mean(head, DATA_KINDS, most=2, cutoff=0.6) or f"known: {', '.join(DATA_KINDS)}"
        return f"{ref}: unknown kind of data `{head}`; {hint}"
    return (
        f"{ref}: no such file or directory (looked at {path});\n"
        f"write one of {', '.join(f'{kind}:DIR' for kind in DATA_KINDS)}, file.npz, "
        f"a folder with train/ and val/, file.py:function"
    )
