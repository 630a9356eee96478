"""Digests of values and of files; it must never know what they are for."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

_READ_WHOLE_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 22


def digest_of(*parts: object) -> str:
    """Of texts, numbers and tensors, in their order."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            sha.update(f"{part.dtype} {list(part.shape)}\n".encode())
            sha.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            sha.update(f"{part!r}\n".encode(errors="surrogatepass"))
    return sha.hexdigest()


def files_digest(paths: Iterable[Path], folder: Path) -> str:
    """Of names below `folder`, and of contents; above 1 GiB of sizes and times instead, for nobody waits that long."""
    found = [(path, path.stat()) for path in paths]
    is_large = sum(status.st_size for _, status in found) > _READ_WHOLE_BYTES
    sha = hashlib.sha256()
    for path, status in found:
        name = path.relative_to(folder) if path.is_relative_to(folder) else path
        sha.update(f"{name.as_posix()!r} {status.st_size} {status.st_mtime_ns if is_large else ''}\n".encode())
        if not is_large:
            sha.update(file_digest(path).encode())
    return sha.hexdigest()


def file_digest(path: Path) -> str:
    """Of a file's content."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def source_digest(written: object) -> str:
    """Of the file that a class or a function is written in; empty where there is none."""
    try:
        name = inspect.getsourcefile(written)  # type: ignore[arg-type]
        return "" if name is None else file_digest(Path(name))
    except (TypeError, OSError):
        return ""
