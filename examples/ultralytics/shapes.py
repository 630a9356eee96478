"""A small detection set that needs no download: squares, discs and triangles on noise, in YOLO's label format."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

NAMES = ("square", "disc", "triangle")
_SMALLEST, _LARGEST = 0.15, 0.4
"""Sizes of shapes, as shares of the image's side."""


def write_shapes(folder: Path, *, n_images: int, side: int, seed: int = 0) -> Path:
    """The YAML file of a data set with `n_images` pictures, every fifth one for validation."""
    random = np.random.default_rng(seed)
    for number in range(n_images):
        split = "val" if number % 5 == 0 else "train"
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        picture, lines = _picture(random, side)
        cv2.imwrite(str(images / f"{number:05}.png"), picture)
        (labels / f"{number:05}.txt").write_text("".join(f"{line}\n" for line in lines))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
    described = folder / "shapes.yaml"
    described.write_text(f"path: {folder.absolute()}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return described


def _picture(random: np.random.Generator, side: int) -> tuple[np.ndarray, list[str]]:
    """One to three shapes, and a line of class, centre and size for each."""
    picture = random.integers(0, 120, (side, side, 3), dtype=np.uint8)
    lines = []
    for _ in range(int(random.integers(1, 4))):
        kind = int(random.integers(len(NAMES)))
        size = int(side * random.uniform(_SMALLEST, _LARGEST)) // 2 * 2
        x, y = (int(random.integers(size // 2 + 1, side - size // 2 - 1)) for _ in range(2))
        _draw(picture, kind, x, y, size // 2, tuple(map(int, random.integers(130, 256, 3))))
        lines.append(f"{kind} {x / side:.5f} {y / side:.5f} {size / side:.5f} {size / side:.5f}")
    return picture, lines


def _draw(picture: np.ndarray, kind: int, x: int, y: int, half: int, colour: tuple[int, ...]) -> None:
    if NAMES[kind] == "square":
        cv2.rectangle(picture, (x - half, y - half), (x + half, y + half), colour, -1)
    elif NAMES[kind] == "disc":
        cv2.circle(picture, (x, y), half, colour, -1)
    else:
        corners = np.array([[x, y - half], [x - half, y + half], [x + half, y + half]], np.int32)
        cv2.fillPoly(picture, [corners], colour)
