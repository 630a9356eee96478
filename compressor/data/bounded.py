"""How much a compressed file may grow when it is unpacked; it must never read a format."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

from compressor.errors import DataError

_ALWAYS_BYTES = 1 << 30
_ALWAYS_PIXELS = 1 << 25
"""100 MB as RGB, in each of as many threads as there are cores."""
_MOST_GROWTH = 200
"""Real images and masks shrink to a twentieth at best; files made to fill the memory grow a thousandfold."""


def refuse_bomb(path: Path, unpacked_bytes: int) -> None:
    """Nothing, when a file of its size can honestly unpack to that many bytes.

    Raises:  DataError if they are above 1 GiB and 200 times the file.
    """
    if unpacked_bytes > most_bytes(path.stat().st_size):
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes that unpack to {unpacked_bytes:,}; "
            "store the data less compressed if it is right"
        )


def refuse_large_image(path: Path | str, packed_bytes: int, size: tuple[int, int], shorter_side: int) -> None:
    """Nothing, when an image of this size (width, height) may be decoded and then resized to that shorter side.

    Raises:  DataError if it has more pixels than 2^25 and than its file can honestly hold, or is so long and thin that
             resizing it makes more.
    """
    width, height = size
    if min(size) < 1:
        raise DataError(f"{path}: is an image of {width} by {height} pixels; remove or replace it")
    if 3 * width * height > max(3 * _ALWAYS_PIXELS, _MOST_GROWTH * packed_bytes):
        raise DataError(f"{path}: {packed_bytes:,} bytes that unpack to {width:,} by {height:,} pixels; remove it")
    if shorter_side**2 * max(size) > _ALWAYS_PIXELS * min(size):
        raise DataError(
            f"{path}: {width:,} by {height:,} pixels are too long and thin for a shorter side of {shorter_side};"
            " remove or crop it"
        )


def most_bytes(packed_bytes: int) -> int:
    """How many bytes a file of that size may unpack to."""
    return max(_ALWAYS_BYTES, _MOST_GROWTH * packed_bytes)


def gunzip(content: bytes, path: Path) -> bytes:
    """The unpacked bytes.

    Raises:  DataError as `refuse_bomb`; OSError, EOFError or zlib.error if the stream is damaged.
    """
    limit = most_bytes(len(content))
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(limit + 1)
    refuse_bomb(path, len(unpacked))
    return unpacked
