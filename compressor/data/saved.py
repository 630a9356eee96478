"""Directories that the `datasets` library saved (`save_to_disk`), opened by that library; it must never load a script,
nor decode what is in a column: cells come as they lie in the files.

What the directory says about itself is looked at before the library is: a name of a file there may lead anywhere.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

from compressor.data.tables import Table, table_of_arrow
from compressor.errors import CompressError, DataError
from compressor.narrowing import is_dict, is_list
from compressor.schema import read_table
from compressor.sealed import sealed

_OF_ALL, _OF_ONE = "dataset_dict.json", "state.json"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` made this directory."""
    return (folder / _OF_ALL).is_file() or (folder / _OF_ONE).is_file()


def open_saved(folder: Path) -> dict[str, Table]:
    """The splits by their names; one without a name is called by none.

    Raises:  DataError if the library is not installed, the directory is damaged, or a name in it leads elsewhere.
    """
    if (folder / _OF_ALL).is_file():
        names = _listed(folder / _OF_ALL, read_table(folder / _OF_ALL, DataError).get("splits"))
        parts = {name: folder / name for name in names}
    else:
        parts = {"": folder}
    files = {name: _files(part) for name, part in parts.items()}
    if find_spec("datasets") is None:
        raise DataError(
            f"{folder}: is read by the datasets library, which is not installed;\n"
            'pip install datasets (the extra "datasets" brings it), or save it as Parquet'
        )
    datasets: Any = importlib.import_module("datasets")
    return {name: _table(datasets, part, files[name]) for name, part in parts.items()}


def _table(datasets: Any, folder: Path, files: tuple[Path, ...]) -> Table:
    if "::" in str(folder):
        raise DataError(f"{folder}: the library takes :: in a name for the way into an archive; rename the directory")
    try:
        with sealed(str(folder)):
            found = datasets.Dataset.load_from_disk(str(folder), keep_in_memory=False)
            arrow = found.with_format("arrow")[:] if len(found) else found.data.table
            classes = {
                str(name): tuple(map(str, kind.names))
                for name, kind in found.features.items()
                if isinstance(kind, datasets.ClassLabel)
            }
    except CompressError:
        raise
    except Exception as error:  # the library's own errors, pyarrow's, and those of the system
        raise DataError(f"{folder}: cannot be read: {type(error).__name__}: {str(error)[:100]}") from error
    plain = table_of_arrow(folder, arrow, folder, files)
    return Table(plain.where, folder, files, plain.columns, plain.n, plain.cell, classes)


def _files(folder: Path) -> tuple[Path, ...]:
    """The shards that a split says it has, all in its own folder."""
    path = folder / _OF_ONE
    listed = read_table(path, DataError).get("_data_files")
    names = [one.get("filename") for one in listed if is_dict(one)] if is_list(listed) else None
    files = tuple(folder / name for name in _listed(path, names))
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing}: no such file, which {path.name} lists; save the data set again")
    return files


def _listed(path: Path, names: Any) -> list[str]:
    """Names of files or folders beside `path`, as it lists them."""
    if not is_list(names) or not names:
        raise DataError(f"{path}: lists nothing; save the data set again")
    for name in names:
        if not isinstance(name, str) or not _is_plain(name):
            raise DataError(f"{path}: {str(name)[:60]!r} is no name of what lies beside it; nothing else is opened")
    return [str(name) for name in names]


def _is_plain(name: str) -> bool:
    """Whether it names one thing in a folder, on every system and for the library, to which : and :: mean more."""
    return PurePath(name).name == name and name not in ("", "..") and not set(name) & set(":\\\0")
