"""Images that a table holds or names, with their classes; decoded as those of folders are.

A path in a table is a stranger's word: it must never lead out of the folder of the table, nor to another machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.data.folders import SUFFIXES, FolderSource, require_pillow
from compressor.data.held import Held
from compressor.data.splits import open_tables
from compressor.data.tables import Table
from compressor.data.text import LABELS, class_of
from compressor.errors import DataError
from compressor.narrowing import is_mapping

_PATHS = ("file_name", "filename", "file", "path", "image_path")
_IMAGES = ("image", "img", *(suffix[1:] for suffix in sorted(SUFFIXES)), *_PATHS)
_LABELS = (*LABELS, "fine_label")

_Items = tuple[tuple[Path | Held, int | None], ...]


def open_images(kind: str, path: Path) -> FolderSource:
    """The images in a table, or in a directory with one for training and one for validation.

    Names of classes are numbered in the order of the alphabet; without a column of classes there are no labels.

    Raises:  DataError if Pillow is missing, there are no images, or a path leads out of the folder.
    """
    ref = f"{kind}:{path}"
    require_pillow(path)
    train, val = open_tables(ref, path)
    labels, n_classes = _numbered(ref, [_classes(table) for table in (train, val)], _known(train))
    parts = [_items(table, numbers) for table, numbers in zip((train, val), labels, strict=True)]
    files = tuple(dict.fromkeys((*train.files, *val.files)))
    return FolderSource(ref, parts[0], parts[1], n_classes, tables=files)


def _items(table: Table, labels: Sequence[int | None]) -> _Items:
    names = [name for name in _IMAGES if name in table.columns]
    if not names:
        has = ", ".join(table.columns)
        raise DataError(f"{table.where}: no column is called {', '.join(_IMAGES[:2])} or {_PATHS[0]}; it has {has}")
    is_path = isinstance(table.cell(0, names[0]), str)
    files: list[Path | Held] = []
    for i in range(table.n):
        where = f"{table.where}: image {i + 1}"
        files.append(_below(table, table.cell(i, names[0]), where) if is_path else _held(table, i, where))
    return tuple(zip(files, labels, strict=True))


def _held(table: Table, number: int, where: str) -> Held:
    """An image that is only looked at when it is needed; samples of an archive may have other forms each."""

    def fetch() -> bytes | Path:
        for name in _IMAGES:
            if (value := table.cell(number, name)) is not None:
                return _content(table, value, f"{where}: its {name}")
        raise DataError(f"{where}: is missing")

    return Held(where, fetch)


def _content(table: Table, value: Any, where: str) -> bytes | Path:
    if isinstance(value, bytes):
        return value
    if is_mapping(value):  # as the datasets library writes them
        held = value.get("bytes")
        return held if isinstance(held, bytes) else _below(table, value.get("path"), where)
    return _below(table, value, where)


def _below(table: Table, value: Any, where: str) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise DataError(f"{where} is {type(value).__name__}, not a path, nor the bytes of an image file")
    if "://" in value:
        raise DataError(f"{where}: {value[:80]} is an address; nothing is fetched, give files below {table.folder}")
    path = Path(os.path.normpath(table.folder / value))
    if not path.is_relative_to(os.path.normpath(table.folder)):
        raise DataError(f"{where}: {value[:80]} leads out of {table.folder}; put table and images into one folder")
    return path


def _classes(table: Table) -> list[str | int | None]:
    name = table.named(_LABELS)
    if name is None:
        return [None] * table.n
    return [class_of(value, f"{table.where}: sample {i}: its {name}") for i, value in enumerate(table.column(name), 1)]


def _known(table: Table) -> tuple[str, ...]:
    return table.classes.get(table.named(_LABELS) or "", ())


def _numbered(
    ref: str, parts: Sequence[Sequence[str | int | None]], known: tuple[str, ...]
) -> tuple[Sequence[Sequence[int | None]], int | None]:
    """Class numbers of both splits, and how many classes there are; none where no sample has one."""
    found = [label for part in parts for label in part]
    if all(label is None for label in found):
        return [[None] * len(part) for part in parts], None
    if any(label is None for label in found):
        raise DataError(f"{ref}: some samples have a class and others have none; give all of them one, or leave it out")
    numbers = [[label for label in part if isinstance(label, int)] for part in parts]
    if sum(map(len, numbers)) == len(found):
        highest, lowest = max(map(max, numbers)), min(map(min, numbers))
        if lowest < 0:
            raise DataError(f"{ref}: a class is {lowest}; class numbers start at 0")
        return numbers, max(highest + 1, len(known))
    names = {name: i for i, name in enumerate(sorted({str(label) for label in parts[0]}))}
    unknown = sorted({str(label) for label in parts[1]} - set(names))
    if unknown:
        raise DataError(f"{ref}: validation has classes that training has not: {', '.join(unknown[:5])}")
    return [[names[str(label)] for label in part] for part in parts], len(names)
