"""Reads `x_train y_train x_test y_test` (and optional `mean std layout shift flip`) from one .npz file.

`x_train` alone, or with `x_test`, is a data set without labels.

It must never hold batching, nor unpickle anything.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.data.arrays import Arrays, ArraySource, Normalisation
from compressor.data.bounded import refuse_bomb
from compressor.data.order import held_out
from compressor.errors import DataError
from compressor.typed_torch import from_numpy

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_OPTIONAL = ("mean", "std", "layout", "shift", "flip")
_LAYOUTS = ("NCHW", "NHWC", "NHW")


def open_npz(path: Path) -> ArraySource:
    """The data set in one file.

    uint8 inputs are images: divided by 255 per batch, (N, H, W) read as (N, 1, H, W). Floats are taken as
    they are, in float32; integers are taken as they are (tokens). `layout` (one of NCHW, NHWC, NHW) says
    how images are stored, `mean` and `std` normalise per channel. Integer targets are class numbers, float
    targets are not. `shift` (pixels) and `flip` (0 or 1) say how `augment` may move and mirror images.
    Without y_train and y_test there are no labels; without x_test too, every tenth sample is held out.

    Raises:  DataError if the file is no npz, holds pickled objects, lacks an array, or arrays do not fit.
    """
    arrays = _load(path)
    layout = _layout(arrays, path)
    splits = _splits(arrays, layout, path)
    targets = [part.target for part in splits if part.target is not None]
    n_classes = None
    if targets and all(target.dtype == torch.int64 and target.dim() == 1 and len(target) for target in targets):
        n_classes = 1 + max(int(target.max()) for target in targets)
    normalisation = _normalisation(arrays, splits[0].inputs, path)
    shift, flip = _augmentation(arrays, splits[0].inputs, path)
    return ArraySource(str(path), splits[0], splits[1], n_classes, normalisation, shift, bool(flip))


def _splits(arrays: dict[str, np.ndarray], layout: str | None, path: Path) -> list[Arrays]:
    """Train and validation."""
    if "x_test" not in arrays:
        inputs = _inputs(arrays["x_train"], layout, f"{path}: x_train")
        train_N, val_N = held_out(len(inputs))
        return [Arrays(inputs[train_N], None), Arrays(inputs[val_N], None)]
    return [
        Arrays(
            _inputs(arrays[f"x_{part}"], layout, f"{path}: x_{part}"),
            _target(arrays[f"y_{part}"], f"{path}: y_{part}") if f"y_{part}" in arrays else None,
        )
        for part in ("train", "test")
    ]


def _load(path: Path) -> dict[str, np.ndarray]:
    _refuse_lies(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            held = list(archive.files)
            arrays = {name: archive[name] for name in (*_ARRAYS, *_OPTIONAL) if name in held}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as cause:
        raise DataError(
            f"{path}: cannot be read as .npz ({cause}); write it with numpy.savez, plain arrays only"
        ) from cause
    is_labelled = "y_train" in arrays or "y_test" in arrays
    missing = [name for name in (_ARRAYS if is_labelled else _ARRAYS[:1]) if name not in arrays]
    if missing:
        raise DataError(f"{path}: no array {', '.join(missing)}; it holds {', '.join(held) or 'nothing'}")
    return arrays


def _refuse_lies(path: Path) -> None:
    """Nothing, when every array's header asks for the bytes that are there: memory is taken by what a header says.

    Raises:  DataError otherwise, and for a file that unpacks to far more than it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_bomb(path, sum(entry.file_size for entry in archive.infolist()))
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(stream)
                    n_bytes = math.prod(shape) * dtype.itemsize
                    if not dtype.hasobject and n_bytes != entry.file_size - stream.tell():
                        raise DataError(f"{path}: {entry.filename}: the header promises {n_bytes:,} bytes of data")
    except (ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as cause:
        raise DataError(
            f"{path}: cannot be read as .npz ({cause}); write it with numpy.savez, plain arrays only"
        ) from cause


def _layout(arrays: dict[str, np.ndarray], path: Path) -> str | None:
    if "layout" not in arrays:
        return None
    layout = str(arrays["layout"].reshape(-1)[0]) if arrays["layout"].size else ""
    if layout not in _LAYOUTS:
        raise DataError(f"{path}: layout `{layout}` is not one of {', '.join(_LAYOUTS)}")
    return layout


def _inputs(values: np.ndarray, layout: str | None, where: str) -> Tensor:
    if layout is not None and values.ndim != len(layout):
        raise DataError(f"{where}: shape {values.shape} does not fit layout {layout}")
    if layout == "NHWC":
        values = values.transpose(0, 3, 1, 2)
    elif layout == "NHW" or (layout is None and values.dtype == np.uint8 and values.ndim == 3):
        values = values[:, None]
    if values.ndim < 2:
        raise DataError(f"{where}: shape {values.shape}; the first dimension counts samples, a second is needed")
    return from_numpy(np.ascontiguousarray(_native(values, where)))


def _target(values: np.ndarray, where: str) -> Tensor:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # as Keras stores CIFAR labels
    values = _native(values.astype(np.int64) if values.dtype.kind in "iu" else values, where)
    if values.dtype == np.int64 and values.size and values.min() < 0:
        raise DataError(f"{where}: label {values.min()} is out of range; class numbers start at 0")
    return from_numpy(np.ascontiguousarray(values))


def _native(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "i":
        return values.astype(np.int64)
    raise DataError(f"{where}: {values.dtype} values; store uint8 images, signed integers or floats")


def _normalisation(arrays: dict[str, np.ndarray], inputs: Tensor, path: Path) -> Normalisation | None:
    if "mean" not in arrays and "std" not in arrays:
        return None
    if not (inputs.dtype == torch.uint8 or inputs.is_floating_point()):
        raise DataError(f"{path}: mean and std need uint8 or float inputs, x_train holds {inputs.dtype}")
    mean, std = (
        tuple(np.atleast_1d(arrays.get(name, default)).astype(float).ravel().tolist())
        for name, default in (("mean", np.zeros(1)), ("std", np.ones(1)))
    )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, inputs.shape[1]):
            raise DataError(f"{path}: {name} has {len(values)} values for {inputs.shape[1]} channels")
    if not all(np.isfinite(mean)) or not all(0 < value < np.inf for value in std):
        raise DataError(f"{path}: mean must be finite and std above 0, got {mean} and {std}")
    return Normalisation(mean, std)


def _augmentation(arrays: dict[str, np.ndarray], inputs: Tensor, path: Path) -> tuple[int, int]:
    """Pixels to move by, and 1 where images may be mirrored; 0 where the file says nothing."""
    found: list[int] = []
    for name, most in (("shift", min(inputs.shape[2:], default=0)), ("flip", 1)):
        values = arrays.get(name, np.zeros(1)).reshape(-1)
        if values.size != 1 or not 0 <= values[0] <= most or values[0] != int(values[0]):
            raise DataError(f"{path}: {name} must be one whole number from 0 to {most}, got {values.tolist()}")
        found.append(int(values[0]))
    if any(found) and inputs.dim() != 4:
        raise DataError(f"{path}: shift and flip are for images (N, C, H, W), x_train is {tuple(inputs.shape)}")
    return found[0], found[1]
