"""Opening of torch files without running what is in them; it must never know what a checkpoint means.

`weights_only=True` is the only way in, unless the user said `--trust-pickle`.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from compressor.errors import ModelError, UnsafeFileError

_GLOBAL = re.compile(r"GLOBAL (\S{1,80}) (?:was not an allowed|whose module)")
_REFUSED = ("Unsupported operand", "unrecognized function", "Can only create", "Can only build")
"""How torch's safe reader begins when it meets an instruction of a pickle that it will not follow."""
_CHUNK_BYTES = 1 << 22


def open_archive(file: BinaryIO, name: str, *, trust_pickle: bool = False) -> Any:
    """What torch.save put into the file: tensors and plain values only, unless the pickle is trusted.

    Raises:  UnsafeFileError if opening it would run code; ModelError if it is damaged.
    """
    try:
        return _torch_load(file, weights_only=True)
    except Exception as error:
        # torch raises anything on damage: from UnpicklingError and RuntimeError to IndexError or MemoryError.
        unsafe = _unsafe_name(error)
        if unsafe is None:
            raise ModelError(f"{name}: is damaged or cut off: {first_line(error)}") from error
        if not trust_pickle:
            raise UnsafeFileError(
                f"{name}: holds pickled Python objects ({unsafe}); opening it could run any code\n"
                f"save only the weights, with torch.save(model.state_dict(), path), and give --arch;\n"
                f"or, if you trust its author, --trust-pickle"
            ) from error
    file.seek(0)
    return _open_trusted(file, name)


def open_safetensors(file: BinaryIO, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:  ModelError if it is damaged.
    """
    from safetensors.torch import load

    try:
        return load(file.read())
    except Exception as error:  # SafetensorError, and KeyError for element types that torch lacks
        raise ModelError(f"{name}: is a damaged safetensors file: {first_line(error)}") from error


def open_exported(file: BinaryIO, name: str, *, trust_pickle: bool) -> nn.Module:
    """The module of a torch.export archive, which takes `eval()` as a module should.

    Raises:  UnsafeFileError unless the pickle is trusted; ModelError if it cannot be opened.
    """
    if not trust_pickle:
        raise UnsafeFileError(
            f"{name}: is a torch.export archive; opening one can run code from it\n"
            f"give the checkpoint that it was made from, with --arch;\n"
            f"or, if you trust its author, --trust-pickle"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.export.load(file).module(check_guards=False)
    except Exception as error:  # torch.export has no common base class for what it raises
        raise ModelError(f"{name}: this archive cannot be opened: {first_line(error)}") from error
    # torch forbids train() and eval() on these; the mode is in the graph, so only the flag is there to set.
    module.train = lambda mode=True: nn.Module.train(module, mode)  # type: ignore[method-assign]
    module.eval = lambda: nn.Module.train(module, False)  # type: ignore[method-assign]
    return module


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal.

    Raises:  ModelError if it cannot be read.
    """
    sha = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                sha.update(chunk)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    return sha.hexdigest()


def first_line(error: BaseException) -> str:
    """The first line of what a library raised, short enough to quote."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _torch_load(file: BinaryIO, *, weights_only: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its storages and old formats
        return torch.load(file, map_location="cpu", weights_only=weights_only)


def _open_trusted(file: BinaryIO, name: str) -> Any:
    try:
        return _torch_load(file, weights_only=False)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{name}: its class cannot be imported: {first_line(error)}\n"
            f"run from the folder of the code that saved it, with PYTHONPATH=."
        ) from error
    except Exception as error:  # a pickle can raise anything
        raise ModelError(f"{name}: cannot be opened: {first_line(error)}") from error


def _unsafe_name(error: Exception) -> str | None:
    """The name of what the pickle would import, None when it is merely damaged."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    text = str(error)
    match = _GLOBAL.search(text)
    if match is not None:
        return match[1]
    return "of a kind that torch's safe reader refuses" if any(begin in text for begin in _REFUSED) else None
