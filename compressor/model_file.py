"""Opening the file that holds a model, and what is said where that cannot be; it must never read what is in it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

from compressor.errors import ModelError
from compressor.nearest import nearest

MODEL_ENDS = (".pt", ".pth", ".th", ".ckpt", ".bin", ".safetensors", ".onnx", ".pt2")
"""Ends of the names that model files have: to point at one, never to tell what it is."""
_DIRECTORIES = (
    (
        "adapter_config.json",
        "holds an adapter (LoRA and the like), not a network; merge it into its model first:\n"
        "PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(directory)",
    ),
    ("model_index.json", "is a pipeline of several networks (diffusers); name one of its folders"),
    (
        "diffusion_pytorch_model*",
        "is a network of diffusers, which is not opened from its directory\n"
        "write net.py with a function that returns Class.from_pretrained(directory), give init --arch net.py:function",
    ),
    ("saved_model.pb", "is a SavedModel of TensorFlow; convert it to ONNX (tf2onnx) and give that"),
    ("Data/com.apple.CoreML", "is a package of Core ML; give the network that it was made from"),
    ("snapshots/*/config.json", "is a folder of the hub's cache; name the one in snapshots/ that holds config.json"),
    (
        "config.json",
        "is a directory of transformers without model.safetensors or pytorch_model.bin\n"
        "fetch the weights too (git lfs pull), or save them again with save_pretrained",
    ),
)
"""What lies in directories that hold no network to open, and what to do; the first that is found is said."""


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
        return f"{path}: {_of_directory(path)}"
    if not isinstance(error, FileNotFoundError):
        return f"{path}: cannot be read: {error.strerror}"
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = [str(path.parent / name) for name in nearest(path.name, beside, most=2, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}?" if near else "for initial weights give the word init and --arch"
    return f"{path}: no such file; {hint}"


def _of_directory(path: Path) -> str:
    """What a directory is that cannot be opened as a model, and what can be done."""
    for inside, told in _DIRECTORIES:
        if next(path.glob(inside), None) is not None:
            return told
    try:
        files = sorted(entry.name for entry in path.iterdir() if entry.suffix in MODEL_ENDS)
    except OSError as error:
        return f"is a directory that cannot be read: {error.strerror}"
    if not files:
        return "is a directory without a model file in it"
    more = f" or one of {len(files) - 1} more" if len(files) > 1 else ""
    return f"is a directory; name the model file in it, such as {path / files[0]}{more}"
