"""State dicts and safetensors whose tensors are none, not finite, or not where the header says."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.formats import load
from compressor.models import build
from tests.bad.forging import saved

ARCH = "lenet-300-100"


def state() -> dict[str, Any]:
    return dict(build(ARCH, {}, seed=1).module.state_dict())


def first() -> str:
    return next(iter(state()))


def _spoiled(value: float) -> Tensor:
    weight = state()[first()].clone()
    weight.view(-1)[7] = value
    return weight


VALUES: dict[str, Any] = {
    "NaN": lambda: _spoiled(float("nan")),
    "infinity": lambda: _spoiled(float("inf")),
    "minus infinity": lambda: _spoiled(float("-inf")),
    "half that overflowed": lambda: torch.full((300, 784), 1e6).half(),
    "empty": lambda: torch.zeros(0),
    "empty of the right rank": lambda: torch.zeros(300, 0),
    "a number": lambda: 3.0,
    "a list": lambda: [[1.0]],
    "nothing": lambda: None,
    "a text": lambda: "weights",
    "whole numbers": lambda: torch.zeros(300, 784, dtype=torch.int64),
    "truth values": lambda: torch.zeros(300, 784, dtype=torch.bool),
    "complex numbers": lambda: torch.zeros(300, 784, dtype=torch.complex64),
    "sparse": lambda: torch.zeros(300, 784).to_sparse(),
    "sparse rows": lambda: torch.zeros(300, 784).to_sparse_csr(),
    "without data": lambda: torch.empty(300, 784, device="meta"),
    "one number stretched": lambda: torch.zeros(1, 1).expand(300, 784),
    "turned": lambda: torch.zeros(784, 300),
    "one dimension more": lambda: torch.zeros(1, 300, 784),
    "a scalar": lambda: torch.tensor(1.0),
    "a dictionary": lambda: {"weight": torch.zeros(300, 784)},
    "float8": lambda: torch.zeros(300, 784, dtype=torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("what", VALUES)
def test_a_tensor_that_cannot_be_a_weight(refused: Any, folder: Path, what: str) -> None:
    (folder / "w.pt").write_bytes(saved({**state(), first(): VALUES[what]()}))
    refused(load, "w.pt", arch=ARCH)


@pytest.mark.parametrize("command", ["analyze", "prune", "compact", "export", "bench"])
def test_nan_is_refused_by_every_command(folder: Path, capsys: Any, command: str) -> None:
    from compressor.cli.main import main

    (folder / "w.pt").write_bytes(saved({**state(), first(): _spoiled(float("nan"))}))
    more = ["--ratio", "2x", "--no-retrain", "-m", "magnitude"] if command == "prune" else []
    assert main([command, "w.pt", "--arch", ARCH, *more]) == 1
    assert "1 of 235,200 values are NaN or infinite; the training that made them diverged" in capsys.readouterr().err


KEYS: dict[str, Any] = {
    "one missing": lambda s: {k: v for k, v in s.items() if k != first()},
    "one more": lambda s: {**s, "more": torch.zeros(1)},
    "numbers as names": lambda s: dict(enumerate(s.values())),
    "None as name": lambda s: {**s, None: torch.zeros(1)},
    "a name of code": lambda s: {**s, "__import__('os').mkdir('canary')": torch.zeros(1)},
    "a name with escapes": lambda s: {**s, "\x1b[31m\x00\n": torch.zeros(1)},
    "a name of 100,000": lambda s: {**s, "x" * 100_000: torch.zeros(1)},
    "10,000 names": lambda s: {f"w{i}": torch.zeros(1) for i in range(10_000)},
    "no names": lambda s: {},
    "a list": lambda s: list(s.values()),
    "wrapped too deep": lambda s: {"model": {"net": {"state_dict": {"module": {"weights": s}}}}},
    "wrapped in itself": lambda s: _ring(),
    "two prefixes": lambda s: {f"{'a' if i % 2 else 'b'}.{k}": v for i, (k, v) in enumerate(s.items())},
    "an ordered dictionary of nothing": lambda s: OrderedDict(),
    "a checkpoint's keys": lambda s: {"compressor": s, "graph": s},
    "a set": lambda s: {"state_dict": set()},
}


def _ring() -> dict[str, Any]:
    ring: dict[str, Any] = {}
    ring["model"] = ring
    return ring


@pytest.mark.parametrize("what", KEYS)
def test_names_that_fit_no_network(refused: Any, folder: Path, what: str) -> None:
    (folder / "w.pt").write_bytes(saved(KEYS[what](state())))
    refused(load, "w.pt", arch=ARCH)


def tensors(header: Any, data: bytes = bytes(24), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


HEADERS: dict[str, bytes] = {
    "no JSON": tensors(b"{nothing}"),
    "a list": tensors([1, 2, 3]),
    "no entries": tensors({}, b""),
    "an entry without offsets": tensors({"w": {"dtype": "F32", "shape": [6]}}),
    "an unknown type": tensors(entry(dtype="F33")),
    "a type that is a number": tensors(entry(dtype=3)),
    "a negative size": tensors(entry(shape=[-2, -3])),
    "a size that overflows": tensors(entry(shape=[2**62, 2**62])),
    "a fraction as size": tensors(entry(shape=[2.5, 3])),
    "offsets beyond the end": tensors(entry(data_offsets=[0, 2**40], shape=[2**38])),
    "offsets before the start": tensors(entry(data_offsets=[-24, 0])),
    "offsets the wrong way": tensors(entry(data_offsets=[24, 0])),
    "offsets that do not fit": tensors(entry(data_offsets=[0, 20])),
    "a gap": tensors(entry(data_offsets=[4, 28]), bytes(28)),
    "two over each other": tensors({**entry(), "v": entry()["w"]}),
    "bytes left over": tensors(entry(), bytes(100)),
    "a header longer than the file": tensors(entry(), length=10**6),
    "a header longer than allowed": tensors(entry(), length=2**40),
    "a header of nothing": tensors(entry(), length=0),
    "depth": tensors(b'{"w":' + b"[" * 50_000),
    "another encoding": tensors(b'{"\xff\xfe":1}'),
    "metadata that is none": tensors({**entry(), "__metadata__": [1]}),
    "an empty tensor": tensors({"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, b""),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_lies(refused: Any, folder: Path, what: str) -> None:
    (folder / "w.safetensors").write_bytes(HEADERS[what])
    refused(load, "w.safetensors", arch=ARCH)


FOREIGN: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"\x80",
    "zeros": bytes(4096),
    "text": b"hello world\n" * 20,
    "JSON": b'{"a": 1}',
    "a web page": b"<!doctype html><title>404</title>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "gzip": b"\x1f\x8b" + bytes(99),
    "bzip2": b"BZh9" + bytes(99),
    "xz": b"\xfd7zXZ" + bytes(99),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99),
    "NumPy": b"\x93NUMPY\x01\x00v\x00" + bytes(99),
    "a tar": bytes(257) + b"ustar" + bytes(300),
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(99),
    "a program": b"\x7fELF" + bytes(99),
    "a zip's first bytes": b"PK\x03\x04",
    "torch's first bytes": bytes.fromhex("80028a0a6cfc9c46f9206aa850192e"),
    "protobuf of nothing": b"\x08\x07" * 50,
    "protobuf without end": b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "script": b"#!/bin/sh\ntouch canary\n",
    "Python": b"import os\nos.mkdir('canary')\n",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_something_else(refused: Any, folder: Path, what: str) -> None:
    (folder / "file").write_bytes(FOREIGN[what])
    refused(load, "file", arch=ARCH)


def test_places_that_are_no_files(refused: Any, folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "locked").mkdir()
    for path in ("missing.pt", ".", "loop", "locked", "good.pt/x", "x" * 5000, "nul\x00l"):
        refused(load, path, arch=ARCH)
