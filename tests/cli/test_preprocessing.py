"""How inputs are made travels with the model: whoever serves it has to do the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.formats import load


def test_image_folders_through_the_pipeline(run: Any, here: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="image folders need Pillow")
    chance = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, name in enumerate(("dark", "light")):
            (here / "images" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = chance.integers(0, 80, (20 + i, 24, 3), np.uint8) + np.uint8(150 * number)
                image.fromarray(pixels).save(here / "images" / split / name / f"{i}.png")
    (here / "rgb.py").write_text((here / "net.py").read_text().replace("Conv2d(1,", "Conv2d(3,"))
    source = ("init", "--arch", "rgb.py:Net", "--input", "3x8x8", "--data", "images")
    cut = ("-r", "2x", "-m", "magnitude", "--retrain-epochs", "1", "-b", "2")
    done = run("prune", *source, *cut, "-o", "p.pt")
    assert done.code == 0, done.err
    assert run("compact", "p.pt", "-o", "c.pt").code == 0
    made = load("c.pt").record.preprocessing
    assert (made["resize_shorter_side"], made["centre_crop"], made["mean"][0]) == (9, 8, 0.485)
    (here / "images").rename(here / "gone")
    assert run("export", "c.pt", "-o", "m.onnx").code == 0
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(here / "m.onnx").metadata_props}
    assert json.loads(properties["compress.preprocessing"]) == made


def test_arrays_say_what_is_done_to_them(run: Any, here: Path) -> None:
    pixels, labels = np.full((8, 1, 8, 8), 100, np.uint8), np.arange(8) % 3
    np.savez(here / "u8.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels, mean=[0.5], std=[0.25])
    cut = ("-r", "2x", "-m", "magnitude", "--no-retrain")
    assert run("prune", "model.pt", *cut, "--data", "u8.npz", "-o", "p.pt").code == 0
    assert load("p.pt").record.preprocessing == {"scale": 1 / 255, "mean": [0.5], "std": [0.25]}
