"""Which rows train and which validate: of a table, of a directory with one for each, of one that a library saved.

It must never know what the columns hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from compressor.data.saved import is_saved, open_saved
from compressor.data.tables import READERS, Table, joined
from compressor.data.tarred import SUFFIX, read_tar
from compressor.errors import DataError

_TRAIN, _VAL = ("train", "training"), ("validation", "valid", "val", "dev", "test")
_ONE_IN = 10
FORMS: Mapping[str, Callable[[Path], Table]] = {**READERS, SUFFIX: read_tar}
"""Whatever is read by the end of its name."""


def open_tables(ref: str, path: Path) -> tuple[Table, Table]:
    """Rows for training and for validation; of one table, or a saved data set with one split, every tenth validates.

    Raises:  DataError if there are none, or a file is in no form that is read.
    """
    if path.is_dir() and is_saved(path):
        return _of_saved(ref, open_saved(path))
    if path.is_dir():
        train, val = (joined([_read(file) for file in _files_of(path, names, ref)]) for names in (_TRAIN, _VAL))
        return train, val
    return _held_out(ref, _read(path))


def _of_saved(ref: str, found: Mapping[str, Table]) -> tuple[Table, Table]:
    for name, table in found.items():
        if not table.n:
            raise DataError(f"{ref}: {name or 'it'} holds no samples")
    if len(found) == 1:
        return _held_out(ref, next(iter(found.values())))
    train, val = (next((found[name] for name in names if name in found), None) for names in (_TRAIN, _VAL))
    if train is None or val is None:
        raise DataError(f"{ref}: needs a split called train and one called validation or test; it has {_few(found)}")
    return train, val


def _held_out(ref: str, table: Table) -> tuple[Table, Table]:
    if table.n < 2:
        raise DataError(
            f"{ref}: one sample cannot train and validate; give more, or a directory with train.* and val.*"
        )
    step = min(_ONE_IN, table.n)
    train = [i for i in range(table.n) if i % step != step - 1]
    return table.rows(train), table.rows(range(step - 1, table.n, step))


def _files_of(folder: Path, names: Sequence[str], ref: str) -> list[Path]:
    """`train.csv`, or the parts `train-*.csv` of it, in the order of their names."""
    for name in names:
        for suffix in FORMS:
            if (found := folder / f"{name}{suffix}").is_file():
                return [found]
            if parts := sorted(folder.glob(f"{name}-*{suffix}")):
                return parts
    raise DataError(f"{ref}: has no {names[0]} file, such as {names[0]}.jsonl or {names[0]}.csv")


def _read(path: Path) -> Table:
    read = FORMS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: is no table of samples; known are {', '.join(FORMS)}")
    table = read(path)
    if not table.n:
        raise DataError(f"{path}: holds no samples")
    return table


def _few(names: Mapping[str, object]) -> str:
    return ", ".join(list(names)[:6]) + (" …" if len(names) > 6 else "")
