"""CIFAR-10 taken apart for carrying comes together byte for byte, and what is wrong or missing is named."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")
from benchmarks import packed


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Made-up binaries: noise, flat areas, black images with alpha-like extremes; numbers that fill no sheet."""
    folder, draws = tmp_path / "cifar", np.random.default_rng(0)
    folder.mkdir()
    for number, name in enumerate(packed.FILES):
        records = draws.integers(0, 256, (7 + 50 * number, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records[::3, 1:] = records[::3, 1:2]
        records[1::5, 1:] = 0
        (folder / name).write_bytes(records.tobytes())
    return folder


def test_the_round_trip_is_exact(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, again = tmp_path / "parts", tmp_path / "again"
    for words in (
        ["write", "--cifar", str(cifar), "--out", str(parts)],
        ["read", str(parts / "cifar10-2of2.zip"), str(parts / "cifar10-1of2.zip"), "--cifar", str(again)],
    ):
        monkeypatch.setattr(sys, "argv", ["packed", *words])
        packed.main()
    assert sorted(path.name for path in parts.iterdir()) == ["cifar10-1of2.zip", "cifar10-2of2.zip"]
    for name in packed.FILES:
        assert (again / name).read_bytes() == (cifar / name).read_bytes()


def test_one_part_alone_writes_nothing(cifar: Path, tmp_path: Path) -> None:
    first, _ = packed.write(cifar, tmp_path / "parts")
    with pytest.raises(SystemExit, match=r"no data_batch_4\.bin, data_batch_5\.bin, test_batch\.bin; give both parts"):
        packed.read([first], tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_byte_that_changed_on_the_way_is_noticed(cifar: Path, tmp_path: Path) -> None:
    parts = packed.write(cifar, tmp_path / "parts")
    with zipfile.ZipFile(parts[0]) as part:
        content = {name: part.read(name) for name in part.namelist()}
    labels = bytearray(content["data_batch_2.bin.labels"])
    labels[3] = (labels[3] + 1) % 10
    with zipfile.ZipFile(parts[0], "w") as part:
        for name, data in (content | {"data_batch_2.bin.labels": bytes(labels)}).items():
            part.writestr(name, data)
    assert "data_batch_2.bin" in json.loads(content["digests.json"])
    with pytest.raises(SystemExit, match=r"1of2\.zip: data_batch_2\.bin is not what was taken apart"):
        packed.read(parts, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_is_no_cifar_is_refused(cifar: Path, tmp_path: Path) -> None:
    (cifar / "data_batch_1.bin").write_bytes(b"123")
    with pytest.raises(SystemExit, match="3 bytes are no records of 3,073"):
        packed.write(cifar, tmp_path / "parts")
