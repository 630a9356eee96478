"""IDX files: what is written is read, and every damage is named."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data.idx import open_idx, read_idx
from compressor.errors import DataError


def idx_bytes(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(folder: Path, *, zipped: bool = False, separator: str = "-") -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (12, 28, 28), np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 10
    for prefix, part in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        for stem, values in (
            (f"images{separator}idx3", images[part]),
            (f"labels{separator}idx1", labels[part]),
        ):
            path = folder / f"{prefix}-{stem}-ubyte{'.gz' if zipped else ''}"
            content = idx_bytes(values)
            path.write_bytes(gzip.compress(content) if zipped else content)
    return images, labels


@pytest.mark.parametrize(("zipped", "separator", "below"), [(False, "-", ""), (True, ".", "raw")])
def test_reads_what_was_written(tmp_path: Path, zipped: bool, separator: str, below: str) -> None:
    images, labels = write_mnist(tmp_path / below, zipped=zipped, separator=separator)
    data = open_idx("mnist", tmp_path)
    assert (data.n_train, data.n_val, data.n_classes, data.input_shapes) == (8, 4, 10, ((1, 28, 28),))
    assert data.ref == f"mnist:{tmp_path}"
    assert torch.equal(data.train.inputs[:, 0], torch.from_numpy(images[:8]))
    assert data.val.target.tolist() == labels[8:].tolist()


@pytest.mark.parametrize(("kind", "mean", "std"), [("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.286, 0.353)])
def test_normalised_by_kind(tmp_path: Path, kind: str, mean: float, std: float) -> None:
    images, _ = write_mnist(tmp_path)
    x = next(open_idx(kind, tmp_path).batches("val", 4)).inputs[0]
    expected = (images[8:].astype(float) / 255 - mean) / std
    np.testing.assert_allclose(x[:, 0].numpy(), expected, rtol=0, atol=1e-5)


def test_digits_are_moved_and_clothes_are_mirrored_too(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    digits, clothes = (open_idx(kind, tmp_path) for kind in ("mnist", "fashion-mnist"))
    assert (digits.shift_pad, digits.flip) == (2, False) and (clothes.shift_pad, clothes.flip) == (2, True)
    assert digits.augments and clothes.augments


def test_missing_files_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory; looked for train-images-idx3-ubyte"):
        open_idx("mnist", tmp_path / "absent")
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"a file is missing; looked for t10k-labels-idx1-ubyte.*and in raw/"):
        open_idx("mnist", tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "values"
    good = idx_bytes(np.zeros((2, 3, 3), np.uint8))
    path.write_bytes(good)
    assert read_idx(path, n_dims=3).shape == (2, 3, 3)
    cases = {
        good[:9]: "9 bytes are too few for an IDX header",
        good[:-1]: "the header promises 18 bytes of data, there are 17",
        good + b"x": "the header promises 18 bytes of data, there are 19",
        b"\x00\x00\x0d" + good[3:]: "magic 00000d03, expected 00000803",
        gzip.compress(good)[:-9]: "cannot be read",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_idx(path, n_dims=3)
    # Sizes whose product overflows 64 bits must not pass for small ones.
    path.write_bytes(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 2**31, 4))
    with pytest.raises(DataError, match="the header promises 18,446,744,073,709,551,616 bytes"):
        read_idx(path, n_dims=3)


def test_labels_are_checked(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.full(8, 10, np.uint8)))
    with pytest.raises(DataError, match="label 10 is out of range"):
        open_idx("mnist", tmp_path)
    labels.write_bytes(idx_bytes(np.zeros(7, np.uint8)))
    with pytest.raises(DataError, match="8 images in train-images-idx3-ubyte but 7 labels"):
        open_idx("mnist", tmp_path)


def test_the_published_files() -> None:
    folder = os.environ.get("COMPRESS_MNIST")
    if not folder:
        pytest.skip("COMPRESS_MNIST does not name a directory with the four MNIST files")
    data = open_idx("mnist", Path(folder))
    assert (data.n_train, data.n_val) == (60_000, 10_000)
    pixels = data.train.inputs.double() / 255
    assert (round(float(pixels.mean()), 4), round(float(pixels.std()), 4)) == (0.1307, 0.3081)
    assert sum(len(batch.target) for batch in data.batches("train", 128, seed=0)) == 60_000
