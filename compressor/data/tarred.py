"""Samples in a tar archive as rows of a table, in the form of webdataset: files of one sample have one name and differ
in its end, which is the name of the column.

Only ordinary files that lie in the archive as they are, and nothing is unpacked: it must never write, nor follow links.
"""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from compressor.data.tables import Table
from compressor.errors import DataError
from compressor.narrowing import is_dict
from compressor.regular import open_regular
from compressor.schema import parse_json

SUFFIX = ".tar"
_TEXTS = ("txt", "text", "cls")
"""Columns that are text; `cls` holds the class."""
_JSON = "json"
"""A column whose entries are columns themselves, as far as there are no others of their names."""

_Place = tuple[int, int]
"""Where a file begins in the archive, and its length."""


def read_tar(path: Path) -> Table:
    """The samples of an archive, in its order.

    Raises:  DataError if it is no archive, is compressed, or holds no samples.
    """
    samples: dict[str, dict[str, _Place]] = {}
    with open_regular(path, DataError) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    key, name = _named(member.name)
                    within = member.offset_data + member.size <= size
                    if member.isreg() and member.sparse is None and within and key and name:
                        samples.setdefault(key, {})[name] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(f"{path}: is no tar archive that is read here: {error}; do not compress it") from error
    rows = list(samples.values())

    def cell(i: int, name: str) -> Any:
        row = rows[i]
        if name in row:
            return _content(path, row[name], name)
        return _described(path, row).get(name) if _JSON in row else None

    described = _described(path, rows[0]) if rows and _JSON in rows[0] else {}
    columns = tuple(dict.fromkeys([*(rows[0] if rows else ()), *map(str, described)]))
    return Table(str(path), path.parent, (path,), columns, len(rows), cell)


def _named(member: str) -> tuple[str, str]:
    """Sample and column: what stands before and behind the first dot of the file's name."""
    path = PurePosixPath(member)
    stem, _, end = path.name.partition(".")
    return (str(path.parent / stem) if stem else ""), end.lower()


def _content(path: Path, place: _Place, name: str) -> Any:
    with open_regular(path, DataError) as file:
        file.seek(place[0])
        content = file.read(place[1])
    if name not in _TEXTS:
        return content
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a .{name} is not written in UTF-8: {error.reason} at byte {error.start}") from error


def _described(path: Path, row: dict[str, _Place]) -> dict[Any, Any]:
    found = parse_json(_content(path, row[_JSON], _JSON), DataError, f"{path}: a .{_JSON}")
    return found if is_dict(found) else {}
