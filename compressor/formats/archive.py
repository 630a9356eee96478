"""Opening of torch files without running what is in them; it must never know what a checkpoint means.

`weights_only=True` is the only way in, unless the user said `--trust-pickle`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import stat
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from compressor.errors import ModelError, UnsafeFileError
from compressor.formats.pickle_work import check_pickles
from compressor.models import import_ultralytics
from compressor.narrowing import is_dict, is_row

_GLOBAL = re.compile(r"GLOBAL (\S{1,80}) (?:was not an allowed|whose module)")
_REFUSED = ("Unsupported operand", "unrecognized function", "Can only create", "Can only build")
"""How torch's safe reader begins when it meets an instruction of a pickle that it will not follow."""
_SETTINGS = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|(?:pathlib|pathlib\._local)\.(?:Pure)?(?:Posix|Windows)?Path|datetime\.\w+"
    r"|omegaconf\.[\w.]+|numpy\.(?:_core|core)\.multiarray\.scalar|numpy\.dtype|numpy\.dtypes\.\w+"
)
"""Classes of settings and numbers that training scripts put beside the weights: `args`, Hydra's `cfg`, `best_acc`."""
_DICTIONARIES = re.compile(
    r"(?:lightning|lightning_fabric|pytorch_lightning|lightning_utilities)[\w.]*\.AttributeDict|easydict\.EasyDict"
    r"|yacs\.config\.CfgNode|addict\.addict\.Dict|ml_collections\.[\w.]+\.ConfigDict|box\.box\.Box"
)
"""The same that are dictionaries: Lightning's `hyper_parameters`."""
_MOST_STAND_INS = 50
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CHUNK_BYTES = 1 << 22


def open_archive(file: BinaryIO, name: str, *, trust_pickle: bool = False) -> Any:
    """What torch.save put into the file: tensors and plain values only, unless the pickle is trusted.

    Raises:  UnsafeFileError if opening it would run code; ModelError if it is damaged.
    """
    try:
        check_pickles(file)
        return without_attributes(_open_with_stand_ins(file))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except Exception as error:
        # torch raises anything on damage: from UnpicklingError and RuntimeError to IndexError or MemoryError.
        unsafe = _unsafe_name(error)
        if unsafe is None:
            raise ModelError(f"{name}: is damaged or cut off: {first_line(error)}") from error
        if not trust_pickle:
            raise UnsafeFileError(
                f"{name}: holds pickled Python objects ({unsafe}); opening it could run any code\n"
                f"save only the weights, with {_saving(unsafe)};\n"
                f"or, if you trust its author, --trust-pickle"
            ) from error
    file.seek(0)
    if _is_of_ultralytics(unsafe):
        import_ultralytics(name)
    return _open_trusted(file, name)


def _is_of_ultralytics(unsafe: str) -> bool:
    return unsafe.startswith("ultralytics.")


def _saving(unsafe: str) -> str:
    """How weights are saved without the pickle that holds an object of that class."""
    if _is_of_ultralytics(unsafe):
        return "torch.save(YOLO(path).model.state_dict(), 'w.pt'), and give --arch ultralytics:NAME"
    return "torch.save(model.state_dict(), path), and give --arch"


def without_attributes(content: Any) -> Any:
    """The same content. An ordered dictionary brings attributes of its own along, which would stand in for its methods.

    torch keeps versions of modules there, which nobody here reads.
    """
    waiting, seen = [content], set[int]()
    while waiting:
        found = waiting.pop()
        if id(found) in seen or not (is_dict(found) or is_row(found)):
            continue
        seen.add(id(found))
        if isinstance(found, OrderedDict):
            vars(found).clear()
        waiting += dict[Any, Any].values(found) if is_dict(found) else found
    return content


class _Ignored:
    """Stands for a value of a class that is of no interest here; whatever the file says about it is dropped."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        return None

    def __new__(cls, *arguments: Any, **named: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        return None


def _open_with_stand_ins(file: BinaryIO) -> Any:
    """torch's safe reader, which is told to put nothing in the place of settings that training scripts leave.

    Neither the classes of that list nor their modules are imported.
    """
    stand_ins: dict[str, type] = {}
    while True:
        file.seek(0)
        known: Any = [(kind, name) for name, kind in stand_ins.items()]
        try:
            with torch.serialization.safe_globals(known):
                return _torch_load(file, weights_only=True)
        except pickle.UnpicklingError as error:
            name = _unsafe_name(error)
            kind = None if name is None or name in stand_ins else _stand_in(name)
            if name is None or kind is None or len(stand_ins) == _MOST_STAND_INS:
                raise
            stand_ins[name] = kind


def _stand_in(name: str) -> type | None:
    if _DICTIONARIES.fullmatch(name):
        return OrderedDict
    return type("Ignored", (_Ignored,), {}) if _SETTINGS.fullmatch(name) else None


def open_safetensors(file: BinaryIO, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped where it is on a disk: read when they are looked at.

    Raises:  ModelError if it is damaged.
    """
    import safetensors
    from safetensors.torch import load

    opened: Any = safetensors.safe_open  # has no types

    path = path_of(file)
    try:
        if path is None:
            return load(file.read())
        with opened(path, framework="pt") as stored:
            return {key: stored.get_tensor(key) for key in list(stored.keys())}
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
    """The first line of what a library raised, short enough to quote; without colours, and without torch's advice to
    open the file all the same."""
    text = _COLOUR.sub("", str(error))
    text = text.rpartition("WeightsUnpickler error: ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip().isprintable() and line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def path_of(file: BinaryIO) -> str | None:
    """The path by which an open file can be mapped: of a regular file that still has its name, else None."""
    name = getattr(file, "name", None)
    try:
        here = os.fstat(file.fileno())
        found = isinstance(name, str) and stat.S_ISREG(here.st_mode) and os.path.samestat(os.stat(name), here)
    except (OSError, ValueError):  # a stream in memory has no descriptor
        return None
    return name if found else None


def _torch_load(file: BinaryIO, *, weights_only: bool) -> Any:
    path = path_of(file) if weights_only and _is_plain_zip(file) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its storages and old formats
        if path is not None:  # private pages: what is written into a tensor never reaches the file
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return torch.load(file, map_location="cpu", weights_only=weights_only)


def _is_plain_zip(file: BinaryIO) -> bool:
    """Whether the file is an archive whose records lie in it as they are, so that they can be mapped."""
    try:
        with zipfile.ZipFile(file) as archive:
            return all(record.compress_type == zipfile.ZIP_STORED for record in archive.infolist())
    except Exception:  # no archive, or a damaged one: zipfile raises anything, and the reader will say what is wrong
        return False
    finally:
        file.seek(0)


def _open_trusted(file: BinaryIO, name: str) -> Any:
    try:
        return _torch_load(file, weights_only=False)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{name}: its class cannot be imported: {first_line(error)}\n"
            f"install its package, or run from the folder of the code that saved it, with PYTHONPATH=."
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
