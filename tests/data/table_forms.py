"""The same rows in every form of a table that `--data` reads; written by the libraries that own the forms."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Rows = Sequence[Mapping[str, Any]]


def _lines(folder: Path, rows: Rows) -> Path:
    path = folder / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _separated(delimiter: str, suffix: str) -> Callable[[Path, Rows], Path]:
    def write(folder: Path, rows: Rows) -> Path:
        path = folder / f"all{suffix}"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def _parquet(folder: Path, rows: Rows) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(list(rows)), folder / "all.parquet", row_group_size=7)
    return folder / "all.parquet"


def _saved(folder: Path, rows: Rows) -> Path:
    datasets = pytest.importorskip("datasets", reason="needs the datasets library")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(list(rows)).save_to_disk(str(folder / "all"), num_shards=2)
    return folder / "all"


def _saved_splits(folder: Path, rows: Rows) -> Path:
    datasets = pytest.importorskip("datasets", reason="needs the datasets library")
    datasets.disable_progress_bars()
    val = [row for i, row in enumerate(rows) if i % 10 == 9]
    train = [row for i, row in enumerate(rows) if i % 10 != 9]
    parts = {name: datasets.Dataset.from_list(part) for name, part in {"test": val, "train": train}.items()}
    datasets.DatasetDict(parts).save_to_disk(str(folder / "all"))
    return folder / "all"


def _shards(folder: Path, rows: Rows) -> Path:
    parts = {"val": [row for i, row in enumerate(rows) if i % 10 == 9]}
    train = [row for i, row in enumerate(rows) if i % 10 != 9]
    parts |= {"train-00000-of-00002": train[:5], "train-00001-of-00002": train[5:]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


def _tar(folder: Path, rows: Rows) -> Path:
    return write_tar(folder / "all.tar", [_members(folder, row) for row in rows])


def _members(folder: Path, row: Mapping[str, Any]) -> dict[str, bytes]:
    ends = {"text": "txt", "label": "cls", "file_name": "png"}
    found = {ends[name]: str(value).encode() for name, value in row.items()}
    return {**found, "png": (folder / row["file_name"]).read_bytes()} if "png" in found else found


def write_tar(path: Path, samples: Sequence[Mapping[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for number, sample in enumerate(samples):
            for end, content in sample.items():
                member = tarfile.TarInfo(f"part/{number:05d}.{end}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


TABLES: Mapping[str, Callable[[Path, Rows], Path]] = {
    "jsonl": _lines,
    "csv": _separated(",", ".csv"),
    "tsv": _separated("\t", ".tsv"),
    "parquet": _parquet,
    "datasets": _saved,
    "datasets with splits": _saved_splits,
    "directory of shards": _shards,
    "tar": _tar,
}
