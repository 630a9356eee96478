"""Samples as rows of a table, from JSON lines, CSV and Parquet; it must never know what the columns are for.

Cells are fetched one by one, so that a column of images is not held decoded, nor twice.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from compressor.data.bounded import refuse_bomb
from compressor.errors import CompressError, DataError
from compressor.narrowing import is_dict
from compressor.regular import open_regular

_LONGEST_FIELD = 1 << 24


@dataclass(frozen=True, eq=False)
class Table:
    """`n` rows: `cell` gives what stands in row i below a name, None where nothing does.

    `classes` are names of class numbers by column, where the table knows them; `files` is what it was read from, and
    paths in it are looked for in `folder`.
    """

    where: str
    folder: Path
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    n: int
    cell: Callable[[int, str], Any]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def named(self, names: Sequence[str]) -> str | None:
        """The first of these names that a column has."""
        return next((name for name in names if name in self.columns), None)

    def column(self, name: str) -> list[Any]:
        """All cells below a name."""
        return [self.cell(i, name) for i in range(self.n)]

    def rows(self, numbers: Sequence[int]) -> Table:
        """Only the rows with these numbers."""
        return replace(self, n=len(numbers), cell=lambda i, name: self.cell(numbers[i], name))


def joined(tables: Sequence[Table]) -> Table:
    """The rows of all tables, one after the other; columns are those of the first."""
    if len(tables) == 1:
        return tables[0]
    places = [(table, i) for table in tables for i in range(table.n)]
    files = tuple(file for table in tables for file in table.files)

    def cell(i: int, name: str) -> Any:
        table, row = places[i]
        return table.cell(row, name)

    return replace(tables[0], where=str(tables[0].folder), files=files, n=len(places), cell=cell)


def table_of_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of dictionaries; its columns are those of the first."""
    columns = tuple(map(str, rows[0])) if rows else ()
    return Table(str(path), path.parent, (path,), columns, len(rows), lambda i, name: rows[i].get(name))


def table_of_arrow(path: Path, table: Any, folder: Path, files: tuple[Path, ...]) -> Table:
    """A table of pyarrow's, which may lie in a file that is mapped into memory."""
    by_name = {str(name): table.column(i) for i, name in enumerate(table.column_names)}

    def cell(i: int, name: str) -> Any:
        return by_name[name][i].as_py() if name in by_name else None

    return Table(str(path), folder, files, tuple(by_name), table.num_rows, cell)


def read_lines(path: Path) -> Table:
    """JSON objects, one a line.

    Raises:  DataError naming the line that is none.
    """
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: line {number} is no JSON: {str(error)[:80]}") from error
        if not is_dict(row):
            raise DataError(f"{path}: line {number} is no object with columns but a {type(row).__name__}")
        rows.append(row)
    return table_of_rows(path, rows)


def read_separated(path: Path) -> Table:
    """CSV, or TSV by the end of the name; the first line has the names.

    Raises:  DataError if it is no table.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        return table_of_rows(path, list(csv.DictReader(io.StringIO(_text(path)), delimiter=delimiter)))
    except csv.Error as error:
        raise DataError(f"{path}: is no table: {error}") from error


def read_parquet(path: Path) -> Table:
    """A Parquet file, by pyarrow.

    Raises:  DataError if that is not installed, cannot read it, or would unpack far more than the file holds.
    """
    if find_spec("pyarrow") is None:
        raise DataError(
            f"{path}: Parquet is read by pyarrow, which is not installed; pip install pyarrow (or give CSV)"
        )
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        with open_regular(path, DataError) as file:
            opened = parquet.ParquetFile(file)
            about = opened.metadata
            unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            refuse_bomb(path, max(unpacked, about.num_rows * about.num_columns))
            return table_of_arrow(path, opened.read(), path.parent, (path,))
    except CompressError:
        raise
    except Exception as error:  # pyarrow's own errors, and those of the system
        raise DataError(f"{path}: cannot be read: {str(error)[:100]}") from error


def _text(path: Path) -> str:
    with open_regular(path, DataError) as file:
        try:
            return file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not written in UTF-8: {error.reason} at byte {error.start}") from error


READERS: Mapping[str, Callable[[Path], Table]] = MappingProxyType(
    {
        ".jsonl": read_lines, ".json": read_lines, ".csv": read_separated, ".tsv": read_separated,
        ".parquet": read_parquet,
    }
)  # fmt: skip
"""Forms of a table by the end of the name."""
