"""Texts with labels from tables, before a tokenizer; it must never know what reads them, nor how a table is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.data.source import Batch
from compressor.data.splits import open_tables
from compressor.data.tables import Table
from compressor.errors import DataError

_TEXTS = ("text", "sentence", "sentence1", "premise", "question", "content", "review", "txt")
_SECONDS = ("text_pair", "sentence2", "hypothesis", "context")
LABELS = ("label", "labels", "class", "target", "cls")
"""What the column of the class is called."""


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
    """The texts in a table, or in a directory with one for training and one for validation.

    Raises:  DataError if there are none, or a file is not in a form that is read.
    """
    ref = f"{kind}:{path}"
    train, val = (_samples(table) for table in open_tables(ref, path))
    return TextSource(ref, train, val)


def _samples(table: Table) -> tuple[Sample, ...]:
    text, second, label = (table.named(names) for names in (_TEXTS, _SECONDS, LABELS))
    if text is None:
        has = ", ".join(table.columns)
        raise DataError(f"{table.where}: no column is called {' or '.join(_TEXTS)}; it has {has}")
    names = (text, second, label)
    columns = [[None] * table.n if name is None else table.column(name) for name in names]
    rows = enumerate(zip(*columns, strict=True), 1)
    return tuple(_sample(row, text, label or "", f"{table.where}: sample {number}") for number, row in rows)


def class_of(kind: Any, where: str) -> str | int | None:
    """A class as it stands in a table: its number, or its name.

    Raises:  DataError if it is neither.
    """
    if isinstance(kind, str) and kind.lstrip("-").isdigit():
        kind = int(kind)
    if isinstance(kind, bool) or not isinstance(kind, (str, int, type(None))):
        raise DataError(f"{where} is {type(kind).__name__}, not a number or a name")
    return kind


def _sample(row: tuple[Any, ...], text: str, label: str, where: str) -> Sample:
    value, pair, kind = row
    if not isinstance(value, str) or not (pair is None or isinstance(pair, str)):
        raise DataError(f"{where}: {text} is {type(value).__name__}, not a text")
    return Sample(value, pair, class_of(kind, f"{where}: its {label}"))
