"""Opening of paths that must be ordinary files; it must never know what is in one.

Reading a pipe or a device waits for somebody, or never ends.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from compressor.errors import CompressError


def open_regular(path: str | os.PathLike[str], error: type[CompressError]) -> BinaryIO:
    """The file, open for reading.

    Raises:  `error` if it is missing, no ordinary file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as cause:  # ValueError: a null character
        raise error(f"{path}: cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{path}: is a directory, a pipe or a device, not a file")
    return open(descriptor, "rb")


def read_regular(path: str | os.PathLike[str], most_bytes: int, error: type[CompressError]) -> bytes:
    """All of a file that is known to be small.

    Raises:  `error` as `open_regular`, and for a file of more than `most_bytes`.
    """
    with open_regular(path, error) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise error(f"{Path(path)}: is larger than {most_bytes:,} bytes, too large for what it is")
    return content
