"""The config.json of a transformers directory, read as plain values and cleared of what chooses a handler.

What a network computes stays in it; how that is computed, on what, from where, is not the file's to say. It must never
import the library that it is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compressor.errors import CompressError, ModelError, UsageError
from compressor.narrowing import is_dict, is_list
from compressor.schema import read_table

CONFIG = "config.json"
_PROCESSOR = "preprocessor_config.json"
_VERSION = "transformers_version"
"""Ten times that of a network with 21,843 named classes."""
_DEEPEST = 20
_OURS_ENDS = ("_implementation", "_implementation_internal")
_OURS = frozenset({"auto_map", "dtype", "torch_dtype", "kernel_config", "use_kernels"})
"""Entries that are left out wherever they stand: which kernels compute, which code of the folder, which precision."""
_QUANTISED = frozenset({"quantization_config", "compression_config"})


def read_configuration(path: Path, changes: Mapping[str, object], largest: int) -> dict[str, Any]:
    """The entries, without those that are ours to choose. `largest` is for whole numbers, there and in `changes`.

    Raises:  ModelError if it is no configuration, asks for quantised weights, or holds a number beyond `largest`;
             UsageError for a change to an entry that is ours.
    """
    entries = read_table(path, ModelError)
    for name in changes:
        if _is_ours(name):
            raise UsageError(f"--arch-arg {name}: does not belong to the network; how it is computed is chosen here")
    for name, value in _walk({**entries, **changes}, path):
        if name in _QUANTISED and value:
            raise ModelError(f"{path}: its weights are quantised ({name}); give the directory that they were made from")
        if type(value) is int and abs(value) > largest:
            raise ModelError(
                f"{path}: {name[:60]} = {str(value)[:20]} is more than a network of these weights can have\n"
                f"if it is right, repeat it as --arch-arg {name[:60]}=… with a smaller value, or with a point (1e7)"
            )
    return _cleared(entries)


def plain_configuration(entries: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of the library's as what JSON holds, cleared as a file is, and of where it was read by what."""
    return _without_origin(_cleared(json.loads(json.dumps(entries, default=str))))


def _without_origin(value: Any) -> Any:
    if is_dict(value):
        kept = {key: part for key, part in value.items() if not key.startswith("_") and key != _VERSION}
        return {key: _without_origin(part) for key, part in kept.items()}
    return [_without_origin(part) for part in value] if is_list(value) else value


def read_processor(folder: Path, error: type[CompressError]) -> dict[str, Any]:
    """What a processor beside the configuration does to images; empty where there is none.

    Raises:  `error` if it cannot be read.
    """
    path = folder / _PROCESSOR
    return read_table(path, error) if path.is_file() else {}


def _walk(value: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Every entry at any depth with the name that it stands under."""
    waiting = [("", value, 0)]
    while waiting:
        name, found, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ModelError(f"{path}: cannot be read: more than {_DEEPEST} tables deep")
        yield name, found
        if is_dict(found):
            waiting += [(str(key), part, depth + 1) for key, part in found.items()]
        elif is_list(found):
            waiting += [(name, part, depth + 1) for part in found]


def _cleared(value: Any) -> Any:
    if is_dict(value):
        return {key: _cleared(part) for key, part in value.items() if not _is_ours(key)}
    return [_cleared(part) for part in value] if is_list(value) else value


def _is_ours(name: str) -> bool:
    return name in _OURS or name.endswith(_OURS_ENDS)
