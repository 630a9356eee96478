"""Opening the file that holds a model, and what is said where that cannot be; it must never read what is in it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

from compressor.errors import ModelError
from compressor.nearest import nearest


def open_model_file(path: Path) -> BinaryIO:
    """Raises:  ModelError if there is none or it cannot be read, with names like it that are there."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelError(_unreadable(path, error)) from error
    except ValueError as error:  # a null character
        raise ModelError(f"{str(path)[:60]}: is no path: {error}") from error


def _unreadable(path: Path, error: OSError) -> str:
    if error.errno == errno.ENAMETOOLONG:
        return f"{str(path)[:60]}…: {error.strerror}"
    if isinstance(error, IsADirectoryError) or path.is_dir():
        return f"{path}: is a directory; name the model file in it"
    if not isinstance(error, FileNotFoundError):
        return f"{path}: cannot be read: {error.strerror}"
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = [str(path.parent / name) for name in nearest(path.name, beside, most=2, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}?" if near else "for initial weights give the word init and --arch"
    return f"{path}: no such file; {hint}"
