"""Image folders: classes, crops and augmentation; needs Pillow."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data import has_labels
from compressor.data.folders import decode, open_folders
from compressor.errors import DataError

Image = pytest.importorskip("PIL.Image", reason="image folders need Pillow, pip install pillow")


def write_images(folder: Path, n: int = 2) -> None:
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("cat", "ant"):
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = generator.integers(0, 256, (300, 260 + 40 * i, 3), np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
            (folder / part / name / "notes.txt").write_text("no image")


def test_classes_are_sorted_and_images_normalised(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = open_folders(tmp_path)
    assert (data.n_train, data.n_val, data.n_classes, data.input_shapes) == (4, 4, 2, ((3, 224, 224),))
    assert data.ref == str(tmp_path)
    batches = list(data.batches("val", 3))
    assert [batch.target.tolist() for batch in batches] == [[0, 0, 1], [1]]
    x = batches[0].inputs[0]
    assert x.shape == (3, 3, 224, 224) and x.dtype == torch.float32
    pixels = decode(tmp_path / "val" / "ant" / "0.png", None)
    assert float(x[0, 2, 3, 4]) == pytest.approx((float(pixels[2, 3, 4]) / 255 - 0.406) / 0.225, abs=1e-5)


def test_the_centre_of_an_image_of_the_right_size_is_kept(tmp_path: Path) -> None:
    pixels_HWC = np.random.default_rng(1).integers(0, 256, (256, 357, 3), np.uint8)
    Image.fromarray(pixels_HWC).save(tmp_path / "a.png")
    out = decode(tmp_path / "a.png", None)
    # (357 - 224) / 2 = 66.5 rounds to even, as torchvision's CenterCrop does.
    expected = pixels_HWC[16 : 16 + 224, 66 : 66 + 224].transpose(2, 0, 1)
    np.testing.assert_array_equal(out.numpy(), expected)
    corner = decode(tmp_path / "a.png", [0.0, 0.0, 0.9])
    np.testing.assert_array_equal(corner.numpy(), pixels_HWC[:224, :224].transpose(2, 0, 1))
    end = decode(tmp_path / "a.png", [0.999, 0.999, 0.1])
    np.testing.assert_array_equal(end.numpy(), pixels_HWC[32:, 133:].transpose(2, 0, 1)[:, :, ::-1])


def test_grey_and_narrow_images_fit(tmp_path: Path) -> None:
    Image.fromarray(np.full((900, 7), 128, np.uint8)).save(tmp_path / "a.png")
    out = decode(tmp_path / "a.png", None)
    assert out.shape == (3, 224, 224)
    assert out.unique().tolist() == [128]


def test_augmentation_depends_on_seed_epoch_and_position(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = open_folders(tmp_path)

    def epoch(batch_size: int, number: int = 0, augment: bool = True) -> torch.Tensor:
        parts = data.batches("train", batch_size, seed=3, epoch=number, augment=augment)
        return torch.cat([batch.inputs[0] for batch in parts])

    whole = epoch(4)
    assert torch.equal(epoch(2), whole)
    assert not torch.equal(epoch(4, augment=False), whole)
    assert not torch.equal(epoch(4, 1), whole)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images: looked for train/CLASS/ and val/CLASS/"):
        open_folders(tmp_path)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no folder val/"):
        open_folders(tmp_path)
    (tmp_path / "val" / "dog").mkdir(parents=True)
    with pytest.raises(DataError, match="val/ has classes that train/ has not: dog"):
        open_folders(tmp_path)
    (tmp_path / "val" / "dog").rmdir()
    with pytest.raises(DataError, match="train: no images in class folders"):
        open_folders(tmp_path)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be decoded as an image"):
        decode(broken, None)


def test_images_without_class_folders_have_no_labels(tmp_path: Path) -> None:
    write_images(tmp_path / "sorted")
    images = sorted((tmp_path / "sorted").rglob("*.jpg")) + sorted((tmp_path / "sorted").rglob("*.png"))
    for split in ("train", "val"):
        (tmp_path / "split" / split).mkdir(parents=True)
    (tmp_path / "heap" / "deep").mkdir(parents=True)
    for number, image in enumerate(images):
        (tmp_path / "heap" / ("deep" if number % 2 else ".") / f"{number}{image.suffix}").write_bytes(
            image.read_bytes()
        )
        split = "train" if number else "val"
        (tmp_path / "split" / split / f"{number}{image.suffix}").write_bytes(image.read_bytes())
    for folder, n_val in (("heap", max(1, -(-len(images) // 10))), ("split", 1)):
        data = open_folders(tmp_path / folder)
        assert not has_labels(data) and data.n_classes is None
        assert (data.n_train, data.n_val) == (len(images) - n_val, n_val)
        assert next(iter(data.batches("val", 1))).target is None


def test_the_extra_is_named_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"needs Pillow; install it with pip install pillow"):
        open_folders(tmp_path)


def test_a_model_of_another_size_gets_images_in_proportion(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = open_folders(tmp_path).fitted(((3, 56, 56),))
    assert (data.resize, data.crop, data.input_shapes) == (64, 56, ((3, 56, 56),))
    batch = next(data.batches("val", 4))
    assert batch.inputs[0].shape == (4, 3, 56, 56)
    assert data.preprocessing["centre_crop"] == 56
    for other in (((1, 56, 56),), ((3, 56, 40),), ((3, 56, 56), (3,)), ((8,),)):
        assert open_folders(tmp_path).fitted(other).crop == 224
