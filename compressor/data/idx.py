"""Reads MNIST and its relatives: pairs of IDX files, plain or gzipped.

It must never hold batching, nor trust a header before the byte count has confirmed it.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from compressor.data.arrays import Arrays, ArraySource, Normalisation
from compressor.data.bounded import gunzip
from compressor.errors import DataError
from compressor.typed_torch import from_numpy

_UBYTE = 0x08
_N_CLASSES = 10
_PAD = 2
# Mean and standard deviation of the training pixels, as everybody rounds them.
_NORMALISATION = {
    "mnist": Normalisation((0.1307,), (0.3081,)),
    "fashion-mnist": Normalisation((0.2860,), (0.3530,)),
}


def open_idx(kind: str, directory: Path) -> ArraySource:
    """The data set in `directory` (or its `raw/`): train files -> train, t10k files -> val.

    Augmentation: moved by up to 2 pixels over black; clothes are mirrored at random as well.
    Raises:  DataError if a file is missing, truncated, no IDX file, or its labels are not 0..9.
    """
    splits: list[Arrays] = []
    for prefix in ("train", "t10k"):
        images_path = _find(directory, f"{prefix}-images", "idx3-ubyte")
        labels_path = _find(directory, f"{prefix}-labels", "idx1-ubyte")
        images_NHW = read_idx(images_path, n_dims=3)
        labels_N = read_idx(labels_path, n_dims=1)
        if len(images_NHW) != len(labels_N):
            raise DataError(
                f"{directory}: {len(images_NHW)} images in {images_path.name} "
                f"but {len(labels_N)} labels in {labels_path.name}"
            )
        _check_labels(labels_N, labels_path)
        splits.append(Arrays(images_NHW[:, None], labels_N.long()))
    # A mirrored digit is no digit; a mirrored shirt is a shirt.
    return ArraySource(
        f"{kind}:{directory}", splits[0], splits[1], _N_CLASSES, _NORMALISATION[kind],
        shift_pad=_PAD, flip=kind == "fashion-mnist",
    )  # fmt: skip


def read_idx(path: Path, *, n_dims: int) -> Tensor:
    """The uint8 tensor of an IDX file.

    Source:  LeCun, "The MNIST database", file format: 0, 0, type, number of dimensions, big-endian sizes,
             data.
    Raises:  DataError if the header is not that of `n_dims` dimensions of unsigned bytes, or the size
             differs.
    """
    content = _content(path)
    header_bytes = 4 + 4 * n_dims
    if len(content) < header_bytes:
        raise DataError(f"{path}: {len(content)} bytes are too few for an IDX header; fetch the file again")
    if content[:4] != bytes((0, 0, _UBYTE, n_dims)):
        raise DataError(
            f"{path}: not an IDX file of {n_dims} dimensions of bytes "
            f"(magic {content[:4].hex()}, expected 0000{_UBYTE:02x}{n_dims:02x})"
        )
    sizes: tuple[int, ...] = struct.unpack(f">{n_dims}I", content[4:header_bytes])
    expected = int(np.prod(sizes, dtype=object))
    if len(content) - header_bytes != expected:
        raise DataError(
            f"{path}: the header promises {expected:,} bytes of data, "
            f"there are {len(content) - header_bytes:,}; fetch the file again"
        )
    values = np.frombuffer(content, np.uint8, offset=header_bytes).reshape(sizes)
    return from_numpy(values.copy())


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gunzip(content, path) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, zlib.error, OSError) as cause:
        raise DataError(f"{path}: cannot be read ({cause}); fetch the file again") from cause


def _find(directory: Path, stem: str, suffix: str) -> Path:
    # Mirrors differ in the separator; torchvision keeps the files in a folder raw/.
    names = [f"{stem}{separator}{suffix}{end}" for separator in "-." for end in ("", ".gz")]
    for folder in (directory, directory / "raw"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    state = "no such directory" if not directory.is_dir() else "a file is missing"
    raise DataError(f"{directory}: {state}; looked for {', '.join(names)} there and in raw/")


def _check_labels(labels_N: Tensor, path: Path) -> None:
    if len(labels_N) and int(labels_N.max()) >= _N_CLASSES:
        raise DataError(f"{path}: label {int(labels_N.max())} is out of range; these data have labels 0..9")
