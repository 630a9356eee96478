"""CIFAR-10 as lossless WebP in two parts, each of a size that can be carried, and the binary files again from both.

    python -m benchmarks.packed write --cifar DIR --out FOLDER      # FOLDER/cifar10-1of2.zip and cifar10-2of2.zip
    python -m benchmarks.packed read FOLDER/*.zip --cifar DIR       # the binary files in DIR, byte for byte

A binary file (a label byte and 3,072 pixel bytes a record) is a sheet of its images and a file of its labels; what is
put together again is compared with the SHA-256 of what was taken apart. Needs NumPy and Pillow.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
PARTS = (FILES[:3], FILES[3:])
_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE
_COLUMNS = 50
"""Of a sheet: 10,000 images make 1,600 × 6,400 pixels, and WebP ends at 16,383."""


def write(cifar: Path, out: Path) -> list[Path]:
    """The files of the two parts."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, names in enumerate(PARTS, 1):
        paths.append(out / f"cifar10-{number}of{len(PARTS)}.zip")
        digests = {}
        with zipfile.ZipFile(paths[-1], "w", zipfile.ZIP_STORED) as part:
            for name in names:
                content = (cifar / name).read_bytes()
                digests[name] = hashlib.sha256(content).hexdigest()
                labels, sheet = _taken_apart(content, name)
                part.writestr(f"{name}.labels", labels)
                part.writestr(f"{name}.webp", sheet)
            part.writestr("digests.json", json.dumps(digests))
    return paths


def read(parts: Sequence[Path], cifar: Path) -> list[Path]:
    """The binary files, written to `cifar` only when all of them are there and right.

    Raises:  SystemExit naming what is missing or differs.
    """
    found: dict[str, bytes] = {}
    for path in parts:
        with zipfile.ZipFile(path) as part:
            for name, digest in json.loads(part.read("digests.json")).items():
                content = _together(part.read(f"{name}.labels"), part.read(f"{name}.webp"))
                if hashlib.sha256(content).hexdigest() != digest:
                    raise SystemExit(f"{path}: {name} is not what was taken apart; carry the part again")
                found[name] = content
    missing = [name for name in FILES if name not in found]
    if missing:
        raise SystemExit(f"{', '.join(map(str, parts))}: no {', '.join(missing)}; give both parts")
    cifar.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        (cifar / name).write_bytes(content)
    return [cifar / name for name in found]


def _taken_apart(content: bytes, name: str) -> tuple[bytes, bytes]:
    """Labels, and the images as one sheet; the places that its last row has too many are black."""
    if len(content) == 0 or len(content) % _RECORD_BYTES:
        raise SystemExit(f"{name}: {len(content):,} bytes are no records of {_RECORD_BYTES:,}; fetch the file again")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD_BYTES)
    rows = -(-len(records) // _COLUMNS)
    images_NCHW = np.zeros((rows * _COLUMNS, 3, _SIDE, _SIDE), np.uint8)
    images_NCHW[: len(records)] = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
    sheet = images_NCHW.reshape(rows, _COLUMNS, 3, _SIDE, _SIDE).transpose(0, 3, 1, 4, 2)
    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(sheet.reshape(rows * _SIDE, _COLUMNS * _SIDE, 3)))
    picture.save(file, "WEBP", lossless=True, exact=True)
    return records[:, 0].tobytes(), file.getvalue()


def _together(labels: bytes, sheet: bytes) -> bytes:
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))
    tiles = pixels.reshape(-1, _SIDE, _COLUMNS, _SIDE, 3).transpose(0, 2, 4, 1, 3)
    flat = tiles.reshape(-1, _RECORD_BYTES - 1)[: len(labels)]
    return np.concatenate([np.frombuffer(labels, np.uint8)[:, None], flat], axis=1).tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    writing, reading = ways.add_parser("write"), ways.add_parser("read")
    writing.add_argument("--cifar", type=Path, required=True, help="folder with the binary files")
    writing.add_argument("--out", type=Path, required=True, help="folder for the two parts")
    reading.add_argument("parts", type=Path, nargs="+", help="both parts")
    reading.add_argument("--cifar", type=Path, required=True, help="folder for the binary files")
    given = parser.parse_args()
    made = write(given.cifar, given.out) if given.way == "write" else read(given.parts, given.cifar)
    for path in made:
        print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
