"""CIFAR-10's binary records, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data.cifar import open_cifar10
from compressor.errors import DataError


def write_cifar(folder: Path, per_file: int = 3) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    records = np.random.default_rng(0).integers(0, 256, (6 * per_file, 3073), np.uint8)
    records[:, 0] %= 10
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        (folder / f"{name}.bin").write_bytes(records[number * per_file : (number + 1) * per_file].tobytes())
    return records


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_reads_what_was_written(tmp_path: Path, below: str) -> None:
    records = write_cifar(tmp_path / below)
    data = open_cifar10("cifar10", tmp_path)
    assert (data.n_train, data.n_val, data.n_classes, data.input_shapes) == (15, 3, 10, ((3, 32, 32),))
    assert data.ref == f"cifar10:{tmp_path}"
    assert data.train.target.tolist() == records[:15, 0].tolist()
    assert torch.equal(data.val.inputs, torch.from_numpy(records[15:, 1:].reshape(3, 3, 32, 32)))
    x = next(data.batches("val", 3)).inputs[0]
    assert float(x[0, 1, 0, 5]) == pytest.approx((records[15, 1 + 1024 + 5] / 255 - 0.456) / 0.224, abs=1e-6)


def test_training_images_are_augmented_when_asked(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    data = open_cifar10("cifar10", tmp_path)
    plain, moved = (next(data.batches("train", 15, seed=0, augment=flag)) for flag in (False, True))
    assert plain.target.tolist() == moved.target.tolist()
    assert not torch.equal(plain.inputs[0], moved.inputs[0])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such directory; it should hold data_batch_1\.bin"):
        open_cifar10("cifar10", tmp_path / "absent")
    write_cifar(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"missing data_batch_4\.bin$"):
        open_cifar10("cifar10", tmp_path)


def test_the_pickled_version_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"")
    with pytest.raises(DataError, match=r"this is the Python \(pickle\) version, the binary version is needed"):
        open_cifar10("cifar10", tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    records = write_cifar(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"9,218 bytes are not a whole number of 3,073-byte records"):
        open_cifar10("cifar10", tmp_path)
    records[3, 0] = 10
    path.write_bytes(records[3:6].tobytes())
    with pytest.raises(DataError, match=r"data_batch_2\.bin: label 10 is out of range"):
        open_cifar10("cifar10", tmp_path)
