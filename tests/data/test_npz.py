"""One .npz file: layouts, types, normalisation, and refusals; the bundled sample is such a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data.npz import open_npz
from compressor.errors import DataError

SAMPLE = Path(__file__).parents[2] / "sample_models" / "mnist_5k.npz"


def write(path: Path, **changed: Any) -> Path:
    arrays: dict[str, Any] = {
        "x_train": np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": np.ones((2, 4, 5), np.uint8),
        "y_test": np.array([3, 0]),
    }
    arrays.update(changed)
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


def test_grey_images_get_a_channel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    data = open_npz(path)
    assert (data.n_train, data.n_val, data.n_classes, data.input_shapes) == (6, 2, 4, ((1, 4, 5),))
    assert data.ref == str(path)
    x = next(data.batches("train", 6)).inputs[0]
    assert float(x[1, 0, 0, 0]) == pytest.approx(20 / 255)


def test_layout_says_where_the_channels_are(tmp_path: Path) -> None:
    x = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    stored = {"x_train": x, "x_test": x, "y_train": np.zeros(2, int)}
    as_stored = open_npz(write(tmp_path / "a.npz", **stored))
    moved = open_npz(write(tmp_path / "b.npz", layout=np.array("NHWC"), **stored))
    assert as_stored.input_shapes == ((4, 5, 3),)
    assert moved.input_shapes == ((3, 4, 5),)
    assert torch.equal(moved.train.inputs, torch.from_numpy(x).permute(0, 3, 1, 2))
    with pytest.raises(DataError, match=r"x_train: shape \(6, 4, 5\) does not fit layout NCHW"):
        open_npz(write(tmp_path / "c.npz", layout=np.array("NCHW")))
    with pytest.raises(DataError, match="layout `CHW` is not one of NCHW, NHWC, NHW"):
        open_npz(write(tmp_path / "c.npz", layout=np.array("CHW")))


def test_mean_and_std_normalise_per_channel(tmp_path: Path) -> None:
    x = np.full((2, 2, 3, 3), 255, np.uint8)
    stored = {"x_train": x, "x_test": x, "y_train": np.zeros(2, int)}
    scaled = write(tmp_path / "a.npz", mean=np.array([0.5, 0.0]), std=np.array([0.25, 4.0]), **stored)
    batch = next(open_npz(scaled).batches("train", 2)).inputs[0]
    assert batch[:, 0].unique().tolist() == [2.0]
    assert batch[:, 1].unique().tolist() == [0.25]
    with pytest.raises(DataError, match="std has 3 values for 2 channels"):
        open_npz(write(tmp_path / "b.npz", std=np.ones(3), **stored))
    with pytest.raises(DataError, match="std above 0"):
        open_npz(write(tmp_path / "b.npz", std=np.zeros(2), **stored))


def test_shift_and_flip_say_how_images_may_be_changed(tmp_path: Path) -> None:
    told = open_npz(write(tmp_path / "a.npz", shift=np.array(2), flip=np.array([1])))
    assert (told.shift_pad, told.flip, told.augments) == (2, True, True)
    moved, plain = (next(told.batches("train", 6, seed=3, augment=flag)).inputs[0] for flag in (True, False))
    assert not torch.equal(moved, plain)
    assert not open_npz(write(tmp_path / "b.npz")).augments
    tokens = np.arange(6).reshape(6, 1)
    for wrong, told_as in (
        ({"shift": -1}, "shift must be one whole number from 0 to 4, got"),
        ({"shift": 5}, "shift must be"),
        ({"shift": 0.5}, "shift must be"),
        ({"flip": np.array([0, 1])}, "flip must be one whole number from 0 to 1"),
        ({"flip": 1, "x_train": tokens, "x_test": tokens[:2]}, "shift and flip are for images"),
    ):
        with pytest.raises(DataError, match=told_as):
            open_npz(write(tmp_path / "c.npz", **wrong))


def test_floats_and_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 7, 2))
    data = open_npz(write(tmp_path / "a.npz", x_train=x, x_test=x[:2]))
    assert data.input_shapes == ((7, 2),)
    np.testing.assert_array_equal(next(data.batches("train", 6)).inputs[0].numpy(), x.astype(np.float32))
    tokens = np.arange(12, dtype=np.int32).reshape(6, 2)
    data = open_npz(write(tmp_path / "b.npz", x_train=tokens, x_test=tokens[:2]))
    assert next(data.batches("train", 6)).inputs[0].tolist() == tokens.tolist()


def test_targets(tmp_path: Path) -> None:
    column = open_npz(write(tmp_path / "a.npz", y_train=np.arange(6)[:, None]))
    assert column.train.target.tolist() == [0, 1, 2, 3, 4, 5]
    assert column.n_classes == 6
    regression = open_npz(write(tmp_path / "b.npz", y_train=np.ones((6, 2)), y_test=np.ones((2, 2))))
    assert regression.n_classes is None
    assert regression.train.target.dtype == torch.float32
    with pytest.raises(DataError, match="y_train: label -1 is out of range"):
        open_npz(write(tmp_path / "c.npz", y_train=np.full(6, -1)))


def test_without_labels_there_are_no_classes_and_without_a_test_part_some_is_held_out(tmp_path: Path) -> None:
    x = np.arange(20 * 4, dtype=np.uint8).reshape(20, 4)
    both = open_npz(write(tmp_path / "a.npz", x_train=x, y_train=None, y_test=None, x_test=x[:3]))
    assert (both.n_train, both.n_val, both.n_classes) == (20, 3, None)
    assert both.train.target is None and both.val.target is None
    alone = open_npz(write(tmp_path / "b.npz", x_train=x, y_train=None, y_test=None, x_test=None))
    assert (alone.n_train, alone.n_val, alone.n_classes) == (18, 2, None)
    parts = torch.cat([alone.train.inputs, alone.val.inputs])
    assert sorted(parts[:, 0].tolist()) == x[:, 0].tolist()


def test_classes_need_whole_numbers_in_both_parts(tmp_path: Path) -> None:
    floats = open_npz(write(tmp_path / "a.npz", y_train=np.linspace(0, 1, 6)))
    assert floats.n_classes is None
    with pytest.raises(DataError, match="val is empty"):
        open_npz(write(tmp_path / "b.npz", x_test=np.ones((0, 4, 5), np.uint8), y_test=np.zeros(0, int)))


def test_what_cannot_be_a_data_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match=r"no array y_test; it holds .*x_train"):
        open_npz(write(path, y_test=None))
    with pytest.raises(DataError, match="train has 6 inputs but 5 targets"):
        open_npz(write(path, y_train=np.zeros(5, int)))
    with pytest.raises(DataError, match="x_train: complex128 values; store uint8 images"):
        open_npz(write(path, x_train=np.zeros((6, 2), complex)))
    with pytest.raises(DataError, match=r"x_train: shape \(6,\); the first dimension counts samples"):
        open_npz(write(path, x_train=np.zeros(6)))
    path.write_bytes(write(path).read_bytes()[:-60])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        open_npz(path)


def test_pickled_objects_are_not_opened(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}] * 6, object)
    with pytest.raises(DataError, match=r"cannot be read as \.npz .*plain arrays only"):
        open_npz(write(tmp_path / "a.npz", x_train=objects))


def test_the_bundled_sample() -> None:
    data = open_npz(SAMPLE)
    assert (data.n_train, data.n_val, data.n_classes, data.input_shapes) == (4000, 1000, 10, ((1, 28, 28),))
    assert torch.bincount(data.val.target).tolist() == [100] * 10
    assert torch.bincount(data.train.target).tolist() == [400] * 10
    digits = {hashlib.sha256(x.numpy().tobytes()).digest() for part in (data.train, data.val) for x in part.inputs}
    assert len(digits) == 5000
    x = next(data.batches("train", 4000)).inputs[0]
    assert abs(float(x.mean())) < 0.02 and abs(float(x.std()) - 1) < 0.02
    assert SAMPLE.stat().st_size < 1_300_000
