"""Files that lie in another file, a table or an archive; it must never know what is in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from compressor.errors import DataError
from compressor.regular import open_regular


@dataclass(frozen=True, eq=False)
class Held:
    """What messages call it, and what gives its bytes, or the path of the file that has them."""

    name: str
    fetch: Callable[[], bytes | Path]

    def __str__(self) -> str:
        return self.name


def opened(file: Path | Held) -> BinaryIO:
    """The file, to be read.

    Raises:  DataError if it is missing, or no ordinary file.
    """
    found = file.fetch() if isinstance(file, Held) else file
    return io.BytesIO(found) if isinstance(found, bytes) else open_regular(found, DataError)
