"""Texts with labels from tables (JSON lines, CSV, Parquet), before a tokenizer; it must never know what reads them.

A file holds both splits, every tenth sample being for validation; a directory has one file for each.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from compressor.data.source import Batch
from compressor.errors import DataError
from compressor.narrowing import is_dict
from compressor.regular import open_regular

_TEXTS = ("text", "sentence", "sentence1", "premise", "question", "content", "review")
_SECONDS = ("text_pair", "sentence2", "hypothesis", "context")
_LABELS = ("label", "labels", "class", "target")
_TRAIN, _VAL = ("train", "training"), ("validation", "valid", "val", "dev", "test")
_ONE_IN = 10
_LONGEST_FIELD = 1 << 24


@dataclass(frozen=True)
class Sample:
    """One text, the second of a pair, and the label, where there are any."""

    text: str
    second: str | None
    label: str | int | None


@dataclass(frozen=True, eq=False)
class TextSource:
    """Texts that still need the tokenizer of a model: `tokens.tokenized` makes a DataSource of them."""

    ref: str
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    n_classes: int | None = None
    augments: bool = False
    input_shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def n_train(self) -> int:
        return len(self.train)

    @property
    def n_val(self) -> int:
        return len(self.val)

    def batches(self, split: str, batch_size: int, **options: Any) -> Iterator[Batch]:
        """Raises:  DataError: texts are no tensors."""
        raise DataError(f"{self.ref}: needs the tokenizer of a model from a directory of transformers")


def open_text(kind: str, path: Path) -> TextSource:
    """The texts in a file, or in a directory with one for training and one for validation.

    Raises:  DataError if there are none, or a file is not in a form that is read.
    """
    ref = f"{kind}:{path}"
    if path.is_dir():
        train, val = (_samples(_file_of(path, names, ref), ref) for names in (_TRAIN, _VAL))
        return TextSource(ref, train, val)
    samples = _samples(path, ref)
    if len(samples) < 2:
        raise DataError(
            f"{ref}: one sample cannot train and validate; give more, or a directory with train.* and val.*"
        )
    step = min(_ONE_IN, len(samples))
    val = samples[step - 1 :: step]
    return TextSource(ref, tuple(s for i, s in enumerate(samples) if i % step != step - 1), val)


def _file_of(folder: Path, names: Sequence[str], ref: str) -> Path:
    for name in names:
        for suffix in READERS:
            if (found := folder / f"{name}{suffix}").is_file():
                return found
    raise DataError(f"{ref}: has no {names[0]} file, such as {names[0]}.jsonl or {names[0]}.csv")


def _samples(path: Path, ref: str) -> tuple[Sample, ...]:
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: is no table of texts; known are {', '.join(READERS)}")
    rows = read(path)
    if not rows:
        raise DataError(f"{path}: holds no samples")
    text, second, label = (_column(rows[0], names) for names in (_TEXTS, _SECONDS, _LABELS))
    if text is None:
        raise DataError(f"{path}: no column is called {' or '.join(_TEXTS)}; it has {', '.join(map(str, rows[0]))}")
    return tuple(_sample(row, text, second, label, f"{path}: sample {i + 1}") for i, row in enumerate(rows))


def _column(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in row), None)


def _sample(row: Mapping[str, Any], text: str, second: str | None, label: str | None, where: str) -> Sample:
    value, pair = row.get(text), None if second is None else row.get(second)
    if not isinstance(value, str) or not (pair is None or isinstance(pair, str)):
        raise DataError(f"{where}: {text} is {type(value).__name__}, not a text")
    kind = None if label is None else row.get(label)
    if isinstance(kind, str) and kind.lstrip("-").isdigit():
        kind = int(kind)
    if isinstance(kind, bool) or not isinstance(kind, (str, int, type(None))):
        raise DataError(f"{where}: its {label} is {type(kind).__name__}, not a number or a name")
    return Sample(value, pair, kind)


def _read_lines(path: Path) -> list[Mapping[str, Any]]:
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
    return rows


def _read_table(path: Path) -> list[Mapping[str, Any]]:
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        return list(csv.DictReader(io.StringIO(_text(path)), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: is no table: {error}") from error


def _read_parquet(path: Path) -> list[Mapping[str, Any]]:
    if find_spec("pyarrow") is None:
        raise DataError(
            f"{path}: Parquet is read by pyarrow, which is not installed; pip install pyarrow (or give CSV)"
        )
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        return parquet.read_table(path).to_pylist()
    except Exception as error:  # pyarrow's own errors, and those of the system
        raise DataError(f"{path}: cannot be read: {str(error)[:100]}") from error


def _text(path: Path) -> str:
    with open_regular(path, DataError) as file:
        try:
            return file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not written in UTF-8: {error.reason} at byte {error.start}") from error


READERS: Mapping[str, Callable[[Path], list[Mapping[str, Any]]]] = MappingProxyType(
    {".jsonl": _read_lines, ".json": _read_lines, ".csv": _read_table, ".tsv": _read_table, ".parquet": _read_parquet}
)
"""Forms of a table by the end of the name."""
