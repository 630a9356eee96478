"""Files that were cut off or changed on the way: refused, or exactly what was written."""

from __future__ import annotations

import functools
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.data import open_data
from compressor.errors import CompressError
from compressor.formats import from_bytes, load
from compressor.program import Program

KINDS = ("checkpoint", "zip", "legacy", "safetensors", "npz")
SHARES = tuple(round(i / 16, 4) for i in range(16))


@functools.cache
def sound(kind: str) -> bytes:
    """A sound file of one kind, none of them a checkpoint."""
    buffer = io.BytesIO()
    state = {"fc.weight": torch.ones(3, 2), "fc.bias": torch.ones(3)}
    if kind == "npz":
        pixels, labels = np.zeros((4, 1, 6, 6), np.float32), np.arange(4) % 2
        np.savez(buffer, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    elif kind == "safetensors":
        return safetensors.torch.save(state)
    else:
        torch.save(state, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


@pytest.fixture
def whole(good: bytes) -> dict[str, bytes]:
    """A sound file of every kind."""
    return {kind: good if kind == "checkpoint" else sound(kind) for kind in KINDS}


def opened(kind: str, content: bytes, folder: Path) -> Any:
    """Reads the content as a user would; a state dict always lacks its architecture's other tensors."""
    (folder / "file").write_bytes(content)
    return open_data(str(folder / "file")) if kind == "npz" else load(folder / "file", arch="lenet-300-100")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", SHARES)
def test_a_file_that_was_cut_off(whole: Any, refused: Any, folder: Path, kind: str, share: float) -> None:
    content = whole[kind]
    refused(opened, kind, content[: int(len(content) * share)], folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [1, 7, 64])
def test_a_file_without_its_end(whole: Any, refused: Any, folder: Path, kind: str, missing: int) -> None:
    refused(opened, kind, whole[kind][:-missing], folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filler", [b"\x00", b"\xff", b"PK\x03\x04", b"\x80\x02"])
def test_a_file_overwritten_in_the_middle(whole: Any, refused: Any, folder: Path, kind: str, filler: bytes) -> None:
    content = bytearray(whole[kind])
    third = len(content) // 3
    content[third : 2 * third] = (filler * third)[:third]
    if kind in ("zip", "legacy", "safetensors"):  # their values carry no checksum: it is the missing tensors that tell
        content = content[: 2 * third]
    refused(opened, kind, bytes(content), folder)


@pytest.mark.parametrize("seed", range(60))
def test_a_bit_flipped_in_a_checkpoint_is_found_or_harmless(program: Program, good: bytes, seed: int) -> None:
    chance = random.Random(seed)
    damaged = bytearray(good)
    for _ in range(chance.choice((1, 1, 1, 8))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    try:
        back = from_bytes(bytes(damaged))
    except CompressError as error:
        assert str(error).count("\n") <= 2
    else:
        x = program.example_inputs(2)
        assert torch.equal(back.module(*x), program.module(*x))
        assert torch.equal(back.masks["0.weight"], program.masks["0.weight"])


@given(data=st.data(), kind=st.sampled_from(KINDS))
@settings(max_examples=150)
def test_no_bytes_whatever_get_anything_but_a_refusal(tmp_path_factory: Any, good: bytes, data: Any, kind: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = bytearray(good if kind == "checkpoint" else sound(kind))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.one_of(st.binary(max_size=12), st.sampled_from(TELLING)))
        content[at : at + data.draw(st.sampled_from((0, 1, len(piece), 40)))] = piece
    try:
        opened(kind, bytes(content), folder)
    except CompressError as error:
        assert str(error).count("\n") <= 2


TELLING = (b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, b'"shape":[-1]', b"PK\x05\x06", b"../", b"\x80\x02c")
