"""A directory as the transformers library saves models: config.json beside weights, whole or in shards.

It must never read a file outside the directory, whatever an index says, nor run what lies in it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from compressor.errors import ModelError
from compressor.formats.archive import open_archive, open_safetensors
from compressor.formats.names import shown
from compressor.formats.state_dict import find_state_dict
from compressor.narrowing import is_dict
from compressor.schema import read_table

_CONFIG = "config.json"
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def is_model_folder(path: str | Path) -> bool:
    """Whether the path is a directory with a configuration and weights in it."""
    folder = Path(path)
    try:
        return (folder / _CONFIG).is_file() and any((folder / name).is_file() for name in (*_WHOLE, *_INDEXES))
    except (OSError, ValueError):
        return False


def read_model_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors by name, of all shards.

    Raises:  ModelError if a file is damaged, or an index names one that is not there or lies elsewhere;
             UnsafeFileError if reading one would run code.
    """
    whole = next((folder / name for name in _WHOLE if (folder / name).is_file()), None)
    if whole is not None:
        return _tensors(whole)
    index = next(folder / name for name in _INDEXES if (folder / name).is_file())
    found: dict[str, Tensor] = {}
    for shard in _shards(index):
        found |= _tensors(shard)
    return found


def _shards(index: Path) -> list[Path]:
    listed = read_table(index, ModelError).get("weight_map")
    if not is_dict(listed):
        raise ModelError(f"{index}: is not an index of weights: it has no table weight_map")
    for name in (names := list(listed.values())):
        if not isinstance(name, str) or not name.isprintable() or Path(name).name != name:
            raise ModelError(f"{index}: names the file {shown(name, 60)!r}, which is not beside it")
        if not (index.parent / name).is_file():
            raise ModelError(f"{index}: the shard {shown(name)} is not there; fetch it too")
    return [index.parent / name for name in sorted(set(names))]


def _tensors(path: Path) -> dict[str, Tensor]:
    with _open(path) as file:
        if path.suffix == ".safetensors":
            return open_safetensors(file, str(path))
        state, _ = find_state_dict(open_archive(file, str(path)))
    if state is None:
        raise ModelError(f"{path}: holds no weights by name")
    return state


@contextmanager
def _open(path: Path) -> Generator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
