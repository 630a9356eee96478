"""Resume points: a fit's state as plain values and as a file; it must never hold what a state means."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.atomic import atomic_write, opened
from compressor.errors import ModelError, TrainingError, first_line
from compressor.formats.archive import without_attributes
from compressor.formats.pickle_work import check_pickles
from compressor.narrowing import is_dict, is_mapping

_KIND = "compressor resume point"
_VERSION = 1


def save_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes the state to `path`, over the one before, so that a kill at any instant leaves one of the two.

    Raises:  OutputError if it cannot be written.
    """
    with atomic_write(path, force=True) as temporary, opened(temporary) as file:
        torch.save({"kind": _KIND, "version": _VERSION, "state": dict(state)}, file)


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that `save_state` wrote, on the CPU; nothing in the file can run code.

    Raises:  ModelError if the file is missing, damaged, or no resume point of this version.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch's reader skips the checksums
        if damaged is not None:
            raise ModelError(f"damaged at {damaged}; delete it and start again without --resume")
        with path.open("rb") as file:
            check_pickles(file)
            content = without_attributes(torch.load(file, map_location="cpu", weights_only=True))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # torch raises anything on a pickle that is damaged
        raise ModelError(f"{path}: cannot be read as a resume point: {first_line(error)}") from error
    kind, version = (content.get("kind"), content.get("version")) if is_dict(content) else (None, None)
    if not isinstance(kind, str) or kind != _KIND:
        raise ModelError(f"{path}: is no resume point; --resume takes the file that a stopped run left")
    if type(version) is not int or version != _VERSION:
        raise ModelError(
            f"{path}: resume point of version {str(version)[:20]}, this program reads {_VERSION}; "
            "finish the run with the program that started it"
        )
    state = content.get("state")
    if not is_dict(state):
        raise ModelError(f"{path}: holds no state; delete it and start again without --resume")
    return state


def plain_copy(value: Any, where: str) -> Any:
    """A deep copy on the CPU in types that `torch.load(weights_only=True)` takes back.

    Raises:  TrainingError naming the entry that is of any other type.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if is_mapping(value):
        return {key: plain_copy(entry, f"{where}.{key}") for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain_copy(entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TrainingError(
        f"{where}: a resume point holds tensors and plain values only, got {type(value).__name__}; "
        "convert it in state_dict()"
    )
