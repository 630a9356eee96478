"""References survive a move with their file and are left alone when they name nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.formats.where import absolute, made_absolute, made_relative
from compressor.program import Record


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("mnist:digits", "mnist:{}/digits"),
        ("digits", "{}/digits"),
        ("set.npz", "{}/set.npz"),
        ("code.py:make", "{}/code.py:make"),
        ("mnist:gone", "mnist:gone"),
        ("gone.npz", "gone.npz"),
        ("gone.py:make", "gone.py:make"),
        ("package.module:make", "package.module:make"),
        ("a\x00b", "a\x00b"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_absolute(tmp_path: Path, ref: str, expected: str) -> None:
    (tmp_path / "digits").mkdir()
    for name in ("set.npz", "code.py"):
        (tmp_path / name).touch()
    found = absolute(ref, tmp_path)
    assert found == expected.format(tmp_path)
    assert absolute(found, tmp_path / "elsewhere") == found


def test_relative_below_the_folder_and_absolute_elsewhere(tmp_path: Path) -> None:
    record = Record(data=f"mnist:{tmp_path}/a/digits", task=f"{tmp_path}/a/t.py:Task")
    inside = made_relative(record, tmp_path / "a")
    assert (inside.data, inside.task) == ("mnist:digits", "t.py:Task")
    outside = made_relative(record, tmp_path / "b")
    assert (outside.data, outside.task) == (record.data, record.task)


def test_a_stream_keeps_absolute_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert made_relative(Record(data="mnist:digits"), None).data == f"mnist:{tmp_path}/digits"
    assert made_absolute(Record(data="mnist:digits"), None).data == "mnist:digits"


def test_a_bundled_task_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "classification").mkdir()
    record = Record(task="classification")
    assert made_relative(record, tmp_path) == record
    assert made_absolute(record, tmp_path) == record
