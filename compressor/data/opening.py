"""Turns the text of `--data` into a data source, and that text into one that survives a move.

It must never hold the reading of a format: it only chooses, by prefix, by content, by form.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from compressor.data.cifar import open_cifar10
from compressor.data.datasets import open_function
from compressor.data.folders import open_folders
from compressor.data.idx import open_idx
from compressor.data.npz import open_npz
from compressor.data.source import DataSource
from compressor.data.text import open_text
from compressor.errors import DataError
from compressor.reference import resolve_path, split_reference

KINDS: Mapping[str, Callable[[str, Path], DataSource]] = MappingProxyType(
    {"mnist": open_idx, "fashion-mnist": open_idx, "cifar10": open_cifar10, "text": open_text}
)
"""Prefix -> reader, called with the prefix and an absolute directory."""

_ZIP_MAGIC = b"PK\x03\x04"


def open_data(ref: str, *, base: Path | None = None, trust_code: bool = False) -> DataSource:
    """The data source that `ref` names: `KIND:DIR`, `file.npz`, an image folder, or a function of the user.

    A relative path is looked for below `base` first, then below the working directory. A function is imported and
    called only with `trust_code`, which is for a reference that the user wrote: one out of a checkpoint is a
    stranger's.

    Raises:  DataError if nothing of that name can be opened; the message says what was looked for;
             UntrustedCodeError if it is code and not trusted.
    """
    kind, colon, rest = ref.partition(":")
    if colon and kind in KINDS:
        if not rest:
            raise DataError(f"{ref}: no directory; write {kind}:DIR")
        return KINDS[kind](kind, resolve_path(rest, base))
    try:
        path = resolve_path(ref, base)
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError) as cause:  # too long, a null character, a user without a home
        raise DataError(f"{ref[:60]}: is not the path of a data set: {cause.__class__.__name__}") from cause
    if is_folder:
        return open_folders(path)
    if is_file:
        return _open_file(ref, path)
    if split_reference(ref) is not None and not _is_mistyped_kind(ref):
        return open_function(ref, base, trust_code=trust_code)
    raise DataError(_unknown(ref, path))


def relocate(ref: str, *, start: Path) -> str:
    """`ref` with its path relative to `start` if it lies below it, else absolute; no path, no change."""
    kind, colon, rest = ref.partition(":")
    if colon and kind in KINDS:
        return f"{kind}:{_below(rest, start)}"
    parts = split_reference(ref)
    if parts is None:
        return _below(ref, start)
    source, attribute = parts
    return f"{_below(source, start)}:{attribute}" if source.endswith(".py") else ref


def _below(text: str, start: Path) -> str:
    path = Path(os.path.abspath(Path(text).expanduser()))
    root = Path(os.path.abspath(start))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _open_file(ref: str, path: Path) -> DataSource:
    if path.suffix == ".py":
        raise DataError(f"{ref}: name the function that returns the two data sets: {ref}:FUNCTION")
    with path.open("rb") as file:
        magic = file.read(len(_ZIP_MAGIC))
    if magic != _ZIP_MAGIC:
        raise DataError(f"{ref}: not an .npz file (it does not begin like a zip archive); see --data in --help")
    return open_npz(path)


def _nearest(word: str) -> list[str]:
    return difflib.get_close_matches(word.lower(), KINDS, n=2, cutoff=0.6)


def _is_mistyped_kind(ref: str) -> bool:
    # `mnst:data` has the form of module:function; a module of that name wins when it exists.
    head = ref.partition(":")[0]
    if head.endswith(".py") or not _nearest(head):
        return False
    here = Path(f"{head}.py").is_file() or Path(head).is_dir()
    return "." not in head and not here and find_spec(head) is None


def _unknown(ref: str, path: Path) -> str:
    head, colon, _ = ref.partition(":")
    if not colon and head in KINDS:
        return f"{ref}: no directory; write {head}:DIR"
    if colon and re.fullmatch(r"[\w-]+", head):
        near = _nearest(head)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(KINDS)}"
        return f"{ref}: unknown kind of data `{head}`; {hint}"
    return (
        f"{ref}: no such file or directory (looked at {path});\n"
        f"write one of {', '.join(f'{kind}:DIR' for kind in KINDS)}, file.npz, "
        f"a folder with train/ and val/, file.py:function"
    )
