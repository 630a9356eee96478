"""Data sets, configuration and code of the user's that are damaged, lie, or do not fit the model."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.cli.main import main
from compressor.data import open_data, open_task

IMAGES = np.zeros((4, 1, 6, 6), np.float32)
LABELS = np.arange(4) % 2


def npz(**changes: Any) -> bytes:
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS} | changes
    buffer = io.BytesIO()
    np.savez(buffer, **{name: values for name, values in arrays.items() if values is not None})
    return buffer.getvalue()


def header(shape: str, dtype: str = "<f4", data: bytes = b"") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def entries(x_train: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(npz())) as file:
        return {name: file.read(name) for name in file.namelist()} | {"x_train.npy": x_train}


ARRAYS: dict[str, Callable[[], bytes]] = {
    "no labels": lambda: npz(y_train=None),
    "no images": lambda: npz(x_test=None),
    "nothing": lambda: zipped({}),
    "fewer labels": lambda: npz(y_train=LABELS[:3]),
    "more labels": lambda: npz(y_test=np.arange(9)),
    "empty": lambda: npz(x_train=IMAGES[:0], y_train=LABELS[:0]),
    "labels below zero": lambda: npz(y_train=LABELS - 1),
    "labels of text": lambda: npz(y_train=np.array(["a", "b", "c", "d"])),
    "images of text": lambda: npz(x_train=np.array([["a"], ["b"], ["c"], ["d"]])),
    "complex images": lambda: npz(x_train=IMAGES.astype(np.complex64)),
    "images of dates": lambda: npz(x_train=IMAGES.astype("datetime64[s]")),
    "pickled objects": lambda: npz(x_train=np.array([{}, {}, {}, {}], dtype=object)),
    "scalars": lambda: npz(x_train=np.float32(1), y_train=np.int64(1)),
    "two shapes": lambda: npz(x_test=np.zeros((4, 1, 5, 5), np.float32)),
    "an unknown layout": lambda: npz(layout=np.array("CHWN")),
    "a layout that does not fit": lambda: npz(layout=np.array("NHW")),
    "a std of zero": lambda: npz(std=np.zeros(1)),
    "a std of NaN": lambda: npz(std=np.full(1, np.nan)),
    "a mean of infinity": lambda: npz(mean=np.full(1, np.inf)),
    "means for other channels": lambda: npz(mean=np.zeros(3)),
    "a shape beyond memory": lambda: zipped(entries(header("(99999999, 99999999)"))),
    "a negative shape": lambda: zipped(entries(header("(-4, 1, 6, 6)"))),
    "a shape that overflows": lambda: zipped(entries(header(f"({2**63}, 1, 6, 6)"))),
    "a shape that is code": lambda: zipped(entries(header("(__import__('os').mkdir('canary'),)"))),
    "a shape of halves": lambda: zipped(entries(header("(0.5, 2)"))),
    "more data than declared": lambda: zipped(entries(header("(4, 1, 6, 6)", data=bytes(999)))),
    "less data than declared": lambda: zipped(entries(header("(4, 1, 6, 6)", data=bytes(99)))),
    "an unknown type": lambda: zipped(entries(header("(4, 1, 6, 6)", "<q9"))),
    "no header": lambda: zipped(entries(b"hello")),
    "a header without end": lambda: zipped(entries(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{")),
    "a version to come": lambda: zipped(entries(b"\x93NUMPY\x09\x00" + header("(4,)")[8:])),
    "a path upwards": lambda: zipped({"../../canary.npy": header("(0,)")}),
    "a text": lambda: b"x_train y_train",
    "a pickle": lambda: b"\x80\x04\x95",
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_that_are_no_data_set(refused: Any, folder: Path, what: str) -> None:
    (folder / "data.npz").write_bytes(ARRAYS[what]())
    refused(open_data, "data.npz")


def test_a_bomb_of_zeros_is_not_unpacked(refused: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.data.bounded._ALWAYS_BYTES", 1 << 16)
    bomb = zipped(entries(header("(1048576, 4)", data=bytes(1 << 24))))
    (folder / "data.npz").write_bytes(bomb)
    assert "bytes that unpack to 16," in refused(open_data, "data.npz")
    labels = struct.pack(">4BI", 0, 0, 8, 1, 4) + bytes(4)
    images = gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 4, 2048, 2048) + bytes(1 << 24))
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(images)
    assert "bytes that unpack to" in refused(open_data, "mnist:.")


def idx(kind: int, sizes: tuple[int, ...], data: bytes) -> bytes:
    return struct.pack(f">4B{len(sizes)}I", 0, 0, kind, len(sizes), *sizes) + data


IDX: dict[str, bytes] = {
    "nothing": b"",
    "half a header": idx(8, (4, 2, 2), b"")[:9],
    "floats": idx(13, (4, 2, 2), bytes(64)),
    "two dimensions": idx(8, (4, 4), bytes(16)),
    "too few bytes": idx(8, (4, 2, 2), bytes(15)),
    "too many bytes": idx(8, (4, 2, 2), bytes(17)),
    "sizes beyond memory": idx(8, (2**32 - 1, 2**32 - 1, 2**32 - 1), bytes(16)),
    "fewer images than labels": idx(8, (3, 2, 2), bytes(12)),
    "none": idx(8, (0, 2, 2), b""),
    "cut gzip": gzip.compress(idx(8, (4, 2, 2), bytes(16)))[:-9],
    "gzip of nothing": b"\x1f\x8b",
}


@pytest.mark.parametrize("what", IDX)
def test_digits_that_are_none(refused: Any, folder: Path, what: str) -> None:
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(IDX[what])
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(8, (4,), bytes(4)))
    refused(open_data, "mnist:.")


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3074), b"\x0a" + bytes(3072)])
def test_cifar_that_is_none(refused: Any, folder: Path, content: bytes) -> None:
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(content)
    refused(open_data, "cifar10:.")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(9), b"<svg/>", b"\xff\xd8\xff" * 9])
def test_images_that_are_none(refused: Any, folder: Path, content: bytes) -> None:
    pytest.importorskip("PIL", reason="image folders need Pillow")
    for split in ("train", "val"):
        (folder / split / "cat").mkdir(parents=True)
        (folder / split / "cat" / "a.png").write_bytes(content)
    source = open_data(str(folder))
    refused(lambda: next(source.batches("val", 2)))


CODE: dict[str, str] = {
    "raises": "1 / 0",
    "ends": "import sys; sys.exit(0)",
    "is no Python": "def f(:",
    "lacks it": "x = 1",
    "is no function": "data = 3",
    "raises when called": "def data(): raise KeyError('x')",
    "wants arguments": "def data(a, b): ...",
    "returns nothing": "def data(): ...",
    "returns one": "def data(): return ([1],)",
    "returns three": "def data(): return ([1], [1], [1])",
    "returns numbers": "def data(): return 1, 2",
    "returns nothing to train on": "def data(): return [], []",
    "returns a generator": "def data(): return (x for x in 'ab'), (x for x in 'ab')",
    "gives no tuples": "import torch\ndef data(): return [torch.zeros(3)], [torch.zeros(3)]",
    "gives texts": "def data(): return [('a', 1)], [('a', 1)]",
}


@pytest.mark.parametrize("what", CODE)
def test_a_function_that_gives_no_data(refused: Any, folder: Path, what: str) -> None:
    (folder / "own.py").write_text(CODE[what])
    refused(open_data, "own.py:data")


TASKS: dict[str, str] = {
    "raises": "1 / 0",
    "lacks it": "",
    "is empty": "class Task: ...",
    "cannot be made": "class Task:\n  def __init__(self, x): ...",
    "raises when made": "class Task:\n  def __init__(self): raise ValueError('x')",
    "has no loss": "class Task:\n  name = primary = 'x'\n  higher_is_better = True\n  def metrics(self, o, b): ...",
}


@pytest.mark.parametrize("what", TASKS)
def test_a_task_that_is_none(refused: Any, folder: Path, what: str) -> None:
    (folder / "own.py").write_text(TASKS[what])
    refused(open_task, "own.py:Task")


REFERENCES = (
    "", ":",
    "mnist:", "mnist", "mnst:data", "cifar100:data", "none.npz", "none/", "own.py", "own.py:", "own.py:f", "a.b:c",
    "../none.npz", "http://example.org/data.npz", "~nobody/data", "x" * 300, "os:getcwd", "a b:c", "file.py:1x",
)  # fmt: skip


@pytest.mark.parametrize("ref", REFERENCES)
def test_a_reference_to_nothing(refused: Any, folder: Path, ref: str) -> None:
    refused(open_data, ref) if ref else refused(open_task, ":")


CONFIGS: dict[str, bytes] = {
    "no TOML": b"= 3",
    "bytes": b"\xff\xfe\x00",
    "depth": b"a = " + b"[" * 20_000,
    "an unknown key": b"ratoi = 3\n",
    "an unknown table": b"[prun]\nratio = 3\n",
    "a key of another command": b"ratio = 3\n",
    "a table for a value": b"[seed]\na = 1\n",
    "a value for a table": b"prune = 3\n",
    "a text for a number": b'seed = "many"\n',
    "a number for a switch": b"quiet = 1\n",
    "a list of lists": b"[prune]\nkeep = [[1]]\n",
    "a date": b"seed = 2026-11-22\n",
    "a number beyond all": b"[prune]\nfloor = 1e999\n",
    "a key twice": b"seed = 1\nseed = 2\n",
    "two spellings": b"[prune]\nretrain-epochs = 1\nretrain_epochs = 2\n",
    "trust": b"trust-pickle = true\n",
    "an output": b'output = "canary"\n',
    "a model": b'[prune]\nmodel = "m.pt"\n',
    "force": b"force = true\n",
    "a plugin that is not there": b'plugin = "none.py"\n',
    "a null character": b'arch = "a\\u0000b"\n',
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_configuration_that_cannot_be_meant(folder: Path, capsys: Any, what: str) -> None:
    (folder / "compress.toml").write_bytes(CONFIGS[what])
    code = main(["prune", "good.pt", "-r", "2x", "-m", "magnitude", "--no-retrain", "-n"])
    told = capsys.readouterr()
    assert (code, told.out) == (2, ""), told.err
    assert 1 <= told.err.count("\n") <= 3, told.err
    assert "bug" not in told.err
