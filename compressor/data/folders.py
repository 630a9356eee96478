"""Reads images from `train/CLASS/*` and `val/CLASS/*`, or without labels from any folder; Pillow decodes them batch by
batch.

It must never hold decoded images longer than their batch, nor import Pillow before it is needed.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.data.arrays import IMAGENET, normalise
from compressor.data.bounded import refuse_large_image
from compressor.data.digests import digest_of, files_digest
from compressor.data.held import Held, opened
from compressor.data.order import held_out
from compressor.data.passes import NumberedSource, Pass
from compressor.data.source import Batch
from compressor.errors import CompressError, DataError
from compressor.sealed import sealed
from compressor.typed_torch import from_numpy, to_integers, to_list

_CROP = 224
_RESIZE_PER_CROP = 256 / 224
"""As torchvision's ImageNet models are evaluated: the shorter side to 256, and 224 from the centre."""
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""Pillow's names of those; left to itself it takes a file's own word for what it is, and hands EPS to Ghostscript."""


@dataclass(frozen=True, eq=False)
class FolderSource(NumberedSource):
    """A DataSource over image files with their class numbers, None each where there are no labels; `tables` hold those
    that are no files of their own.

    Shorter side resized to 256, centre crop of 224, ImageNet normalisation; for models of another input size both in
    proportion. With `augment` the crop is placed at random and flipped left-right at random.
    """

    ref: str
    train: tuple[tuple[Path | Held, int | None], ...]
    val: tuple[tuple[Path | Held, int | None], ...]
    n_classes: int | None
    input_shapes: tuple[tuple[int, ...], ...] = ((3, _CROP, _CROP),)
    tables: tuple[Path, ...] = ()

    @property
    def labelled(self) -> bool:
        return self.n_classes is not None

    @property
    def augments(self) -> bool:
        return True

    @property
    def crop(self) -> int:
        return self.input_shapes[0][1]

    @property
    def resize(self) -> int:
        return round(self.crop * _RESIZE_PER_CROP)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """From an image file to what the model reads, in this order."""
        return {
            "resize_shorter_side": self.resize,
            "interpolation": "bilinear",
            "centre_crop": self.crop,
            "scale": 1 / 255,
            "mean": list(IMAGENET.mean),
            "std": list(IMAGENET.std),
        }

    def fitted(self, shapes: tuple[tuple[int | None, ...], ...]) -> FolderSource:
        """The same images at the size that a model takes, where it takes square ones of three channels."""
        match shapes:
            case ((3, int(height), int(width)),) if height == width:
                return replace(self, input_shapes=((3, height, width),))
            case _:
                return self

    @property
    def n_train(self) -> int:
        return len(self.train)

    @property
    def n_val(self) -> int:
        return len(self.val)

    def content_digest(self) -> str:
        """See `identity.identity_of_data`."""
        paths = [file for part in (self.train, self.val) for file, _ in part if isinstance(file, Path)]
        labels = [[label for _, label in part] for part in (self.train, self.val)]
        folder = self.tables[0].parent if self.tables else Path(self.ref)
        return digest_of(files_digest([*self.tables, *paths], folder), labels, self.input_shapes)

    def fetched(self, asked: Pass) -> Iterator[Batch]:
        """Raises:  DataError naming the file that cannot be decoded."""
        files, device = self.train if asked.split == "train" else self.val, asked.device
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part in asked.slices:
                picked = [files[i] for i in to_integers(asked.order.sample_N[part])]
                draws: Sequence[list[float] | None]
                draws = [None] * len(picked) if asked.draws_N3 is None else to_list(asked.draws_N3[part])
                sizes = [(self.resize, self.crop)] * len(picked)
                images = list(pool.map(decode, [file for file, _ in picked], draws, sizes))
                target_N = torch.tensor([label for _, label in picked]).to(device) if self.labelled else None
                yield Batch((normalise(torch.stack(images).to(device), IMAGENET),), target_N)


def open_folders(directory: Path) -> FolderSource:
    """The data set in `directory`; class numbers follow the sorted names of the folders in `train/`.

    Without `train/` and `val/`, or without class folders in them, these are images without labels.

    Raises:  DataError if Pillow is not installed, a folder or images are missing, or `val/` has other
             classes.
    """
    require_pillow(directory)
    there = [name for name in ("train", "val") if (directory / name).is_dir()]
    if not there:
        return _unlabelled(directory)
    if len(there) == 1:
        lacks = "val" if there == ["train"] else "train"
        raise DataError(f"{directory}: no folder {lacks}/; looked for train/CLASS/ and val/CLASS/ with images")
    if not any(path.is_dir() for name in there for path in (directory / name).iterdir()):
        train, val = (_images(directory / name) for name in there)
        return FolderSource(str(directory), train, val, None)
    classes = sorted(path.name for path in (directory / "train").iterdir() if path.is_dir())
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = [path.name for path in (directory / "val").iterdir() if path.is_dir() and path.name not in numbers]
    if unknown:
        raise DataError(f"{directory}: val/ has classes that train/ has not: {', '.join(sorted(unknown)[:5])}")
    train, val = (_files(directory / name, numbers) for name in ("train", "val"))
    return FolderSource(str(directory), train, val, len(classes))


def decode(file: Path | Held, draws: list[float] | None, sizes: tuple[int, int] = (256, _CROP)) -> Tensor:
    """One image resized and cropped to `sizes` where `draws` (vertical, horizontal, flip) say, in the centre without.

    Shapes:  -> (3, crop, crop) uint8
    Raises:  DataError if Pillow cannot decode the file.
    """
    from PIL import Image

    resize, crop = sizes
    try:
        with sealed(str(file)), opened(file) as content:
            packed_bytes = content.seek(0, os.SEEK_END)
            content.seek(0)
            with Image.open(content, formats=_FORMATS) as picture:
                refuse_large_image(str(file), packed_bytes, picture.size, resize)
                image = picture.convert("RGB")
    except CompressError:
        raise
    except Exception as cause:  # Pillow's readers raise anything on damage
        raise DataError(f"{file}: cannot be decoded as an image ({cause}); remove or replace it") from cause
    width, height = (resize * side // min(image.size) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    room = (height - crop, width - crop)
    if draws is None:
        top, left = (round(side / 2) for side in room)
    else:
        top, left = (math.floor(draw * (side + 1)) for draw, side in zip(draws[:2], room, strict=True))
    pixels_HWC = np.array(image.crop((left, top, left + crop, top + crop)))
    pixels = from_numpy(pixels_HWC).permute(2, 0, 1).contiguous()
    return pixels.flip(2) if draws is not None and draws[2] < 0.5 else pixels


def require_pillow(where: Path) -> None:
    """Nothing, where images can be decoded.

    Raises:  DataError if Pillow is not installed.
    """
    try:
        importlib.import_module("PIL.Image")
    except ImportError as cause:
        raise DataError(f"{where}: reading images needs Pillow; install it with pip install pillow") from cause


def _unlabelled(directory: Path) -> FolderSource:
    """All images below a folder."""
    images = _images(directory)
    train_N, val_N = held_out(len(images))
    train, val = (tuple(images[i] for i in to_integers(part)) for part in (train_N, val_N))
    return FolderSource(str(directory), train, val, None)


def _images(folder: Path) -> tuple[tuple[Path, None], ...]:
    files = tuple((path, None) for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(
            f"{folder}: no images: looked for train/CLASS/ and val/CLASS/, or images without labels anywhere below"
            f" ({', '.join(sorted(SUFFIXES))})"
        )
    return files


def _files(folder: Path, numbers: dict[str, int]) -> tuple[tuple[Path, int], ...]:
    files = tuple(
        (path, numbers[name])
        for name in sorted(numbers)
        if (folder / name).is_dir()
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    )
    if not files:
        raise DataError(f"{folder}: no images in class folders (looked for {', '.join(sorted(SUFFIXES))})")
    return files
