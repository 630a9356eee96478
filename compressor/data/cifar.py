"""Reads the binary version of CIFAR-10: records of one label byte and 3,072 pixel bytes in CHW order.

It must never hold batching, nor a reader of the pickled version (opening a pickle runs code).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compressor.data.arrays import IMAGENET, Arrays, ArraySource
from compressor.errors import DataError
from compressor.typed_torch import from_numpy

_N_CLASSES = 10
_SHAPE_CHW = (3, 32, 32)
_RECORD_BYTES = 1 + 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_VAL = ("test_batch.bin",)
_PAD = 4


def open_cifar10(kind: str, directory: Path) -> ArraySource:
    """The data set in `directory` (or its `cifar-10-batches-bin/`): five training files, test_batch -> val.

    Augmentation: 4 black pixels of padding, random crop, random left-right flip.
    Source:  Krizhevsky 2009, cs.toronto.edu/~kriz/cifar.html, "Binary version"; He et al. 2015, sec. 4.2.
    Raises:  DataError if a file is missing, truncated, or its labels are not 0..9.
    """
    folder = _find(directory)
    train, val = (_read([folder / name for name in names]) for names in (_TRAIN, _VAL))
    return ArraySource(f"{kind}:{directory}", train, val, _N_CLASSES, IMAGENET, shift_pad=_PAD, flip=True)


def _find(directory: Path) -> Path:
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; it should hold {_TRAIN[0]} .. {_TRAIN[-1]} and {_VAL[0]}")
    for folder in (directory, directory / "cifar-10-batches-bin"):
        if (folder / _VAL[0]).is_file():
            break
    else:
        folder = directory
    missing = [name for name in (*_TRAIN, *_VAL) if not (folder / name).is_file()]
    if missing:
        pickled = any((directory / part / "test_batch").is_file() for part in (".", "cifar-10-batches-py"))
        hint = "; this is the Python (pickle) version, the binary version is needed" if pickled else ""
        raise DataError(f"{folder}: missing {', '.join(missing)}{hint}")
    return folder


def _read(paths: list[Path]) -> Arrays:
    records = np.concatenate([_records(path) for path in paths])
    images_NCHW = records[:, 1:].reshape(-1, *_SHAPE_CHW)
    return Arrays(from_numpy(np.ascontiguousarray(images_NCHW)), from_numpy(records[:, 0].astype(np.int64)))


def _records(path: Path) -> np.ndarray:
    content = np.fromfile(path, np.uint8)
    if len(content) == 0 or len(content) % _RECORD_BYTES:
        raise DataError(
            f"{path}: {len(content):,} bytes are not a whole number of {_RECORD_BYTES:,}-byte records; "
            f"fetch the file again"
        )
    records = content.reshape(-1, _RECORD_BYTES)
    if records[:, 0].max() >= _N_CLASSES:
        raise DataError(f"{path}: label {records[:, 0].max()} is out of range; CIFAR-10 has labels 0..9")
    return records
