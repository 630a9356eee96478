"""Reads images from `train/CLASS/*` and `val/CLASS/*`, decoding them batch by batch with Pillow.

It must never hold decoded images longer than their batch, nor import Pillow before it is needed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.data.arrays import IMAGENET, normalise
from compressor.data.order import augmentation_draws, batch_slices, epoch_order
from compressor.data.source import Batch, Split
from compressor.errors import DataError

_RESIZE = 256
_CROP = 224
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


@dataclass(frozen=True, eq=False)
class FolderSource:
    """A DataSource over image files with their class numbers.

    Shorter side resized to 256, centre crop of 224, ImageNet normalisation; with `augment` the crop is
    placed at random and flipped left-right at random.
    """

    ref: str
    train: tuple[tuple[Path, int], ...]
    val: tuple[tuple[Path, int], ...]
    n_classes: int | None
    input_shapes: tuple[tuple[int, ...], ...] = ((3, _CROP, _CROP),)

    @property
    def n_train(self) -> int:
        return len(self.train)

    @property
    def n_val(self) -> int:
        return len(self.val)

    def batches(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        augment: bool = False,
        limit: int | None = None,
        device: str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Batches as DataSource.batches describes.

        Raises:  DataError naming the file that cannot be decoded.
        """
        files = self.train if split == "train" else self.val
        order = epoch_order(len(files), split, seed=seed, epoch=epoch, limit=limit, shard=shard)
        draws_N3 = None
        if augment and split == "train":
            draws_N3 = augmentation_draws(len(files), seed=seed, epoch=epoch)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part in batch_slices(len(order.sample_N), batch_size, split):
                picked = [files[i] for i in order.sample_N[part].tolist()]
                draws = [None] * len(picked) if draws_N3 is None else draws_N3[order.position_N[part]].tolist()
                images = list(pool.map(decode, [path for path, _ in picked], draws))
                target_N = torch.tensor([label for _, label in picked]).to(device)
                yield Batch((normalise(torch.stack(images).to(device), IMAGENET),), target_N)


def open_folders(directory: Path) -> FolderSource:
    """The data set in `directory`; class numbers follow the sorted names of the folders in `train/`.

    Raises:  DataError if Pillow is not installed, a folder or images are missing, or `val/` has other
             classes.
    """
    _require_pillow(directory)
    for name in ("train", "val"):
        if not (directory / name).is_dir():
            raise DataError(f"{directory}: no folder {name}/; looked for train/CLASS/ and val/CLASS/ with images")
    classes = sorted(path.name for path in (directory / "train").iterdir() if path.is_dir())
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = [path.name for path in (directory / "val").iterdir() if path.is_dir() and path.name not in numbers]
    if unknown:
        raise DataError(f"{directory}: val/ has classes that train/ has not: {', '.join(sorted(unknown)[:5])}")
    train, val = (_files(directory / name, numbers) for name in ("train", "val"))
    return FolderSource(str(directory), train, val, len(classes))


def decode(path: Path, draws: list[float] | None) -> Tensor:
    """One image cropped to 224 where `draws` (vertical, horizontal, flip) say, in the centre without them.

    Shapes:  -> (3, 224, 224) uint8
    Raises:  DataError if Pillow cannot decode the file.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as cause:
        raise DataError(f"{path}: cannot be decoded as an image ({cause}); remove or replace it") from cause
    width, height = (_RESIZE * side // min(image.size) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    room = (height - _CROP, width - _CROP)
    if draws is None:
        top, left = (round(side / 2) for side in room)
    else:
        top, left = (math.floor(draw * (side + 1)) for draw, side in zip(draws[:2], room, strict=True))
    pixels_HWC = np.array(image.crop((left, top, left + _CROP, top + _CROP)))
    pixels = torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous()
    return pixels.flip(2) if draws is not None and draws[2] < 0.5 else pixels


def _require_pillow(directory: Path) -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as cause:
        raise DataError(
            f"{directory}: reading image folders needs Pillow; install it with pip install 'compressor[vision]'"
        ) from cause


def _files(folder: Path, numbers: dict[str, int]) -> tuple[tuple[Path, int], ...]:
    files = tuple(
        (path, numbers[name])
        for name in sorted(numbers)
        if (folder / name).is_dir()
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _SUFFIXES
    )
    if not files:
        raise DataError(f"{folder}: no images in class folders (looked for {', '.join(sorted(_SUFFIXES))})")
    return files
