"""Turns the text of `--data` into a data source, and that text into one that survives a move.

It must never hold the reading of a format: it only chooses, by prefix, by content, by form.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from inspect import isfunction
from pathlib import Path
from types import MappingProxyType

from compressor.data.cifar import open_cifar10
from compressor.data.folders import open_folders
from compressor.data.idx import open_idx
from compressor.data.image_tables import open_images
from compressor.data.npz import open_npz
from compressor.data.of_function import open_function
from compressor.data.saved import is_saved
from compressor.data.source import DataSource
from compressor.data.splits import FORMS
from compressor.data.text import open_text
from compressor.data_reference import DATA_KINDS, read_data_reference
from compressor.errors import DataError
from compressor.reference import complete_reference, split_reference, takes

KINDS: Mapping[str, Callable[[str, Path], DataSource]] = MappingProxyType(
    dict(zip(DATA_KINDS, (open_idx, open_idx, open_cifar10, open_text, open_images), strict=True))
)
"""Prefix -> reader, called with the prefix and an absolute directory."""

_IMAGES = "images"
_ZIP_MAGIC = b"PK\x03\x04"


def open_data(ref: str, *, base: Path | None = None, trust_code: bool = False) -> DataSource:
    """The data source that `ref` names: `KIND:DIR`, `file.npz`, an image folder, or a function of the user.

    A relative path is looked for below `base` first, then below the working directory. A function is imported and
    called only with `trust_code`, which is for a reference that the user wrote: one out of a checkpoint is a
    stranger's.

    Raises:  DataError if nothing of that name can be opened; the message says what was looked for;
             UntrustedCodeError if it is code and not trusted.
    """
    found = read_data_reference(ref, base)
    if found.path is None:
        return open_function(ref, base, trust_code=trust_code)
    if found.form == "kind":
        return KINDS[found.kind](found.kind, found.path)
    if found.form == "folder":
        return open_images(_IMAGES, found.path) if is_saved(found.path) else open_folders(found.path)
    return _open_file(ref, found.path, base, trust_code)


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


def _open_file(ref: str, path: Path, base: Path | None, trust_code: bool) -> DataSource:
    if path.suffix == ".py":
        whole = complete_reference(
            ref, field="data", trust_code=trust_code, base=base, error=DataError,
            fits=(lambda found: isfunction(found) and takes(found, {}),),
        )  # fmt: skip
        return open_function(whole, base, trust_code=trust_code)
    with path.open("rb") as file:
        magic = file.read(len(_ZIP_MAGIC))
    if magic != _ZIP_MAGIC:
        what = (
            f"a table is given as text:{ref} or images:{ref}"
            if path.suffix.lower() in FORMS
            else "see --data in --help"
        )
        raise DataError(f"{ref}: not an .npz file (it does not begin like a zip archive); {what}")
    return open_npz(path)
