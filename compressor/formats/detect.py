"""What kind of file a model is in, found out from its bytes and never from its name.

It must never unpickle, import or allocate by what a file says: it reads headers and skips.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from compressor.errors import ModelError
from compressor.model_file import MODEL_ENDS


class Kind(Enum):
    """The containers that a model can come in."""

    TORCH = "a torch.save file"
    SAFETENSORS = "a safetensors file"
    ONNX = "an ONNX model"
    EXPORTED = "a torch.export archive"
    TORCHSCRIPT = "a TorchScript archive"


_LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""What torch.save wrote first before 1.6: pickle protocol 2 of its magic number."""
_LONGEST_SAFETENSORS_HEADER = 100_000_000
"""The format's own limit."""

_FOREIGN = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull"),
    (0, b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (0, b"BZh", "compressed with bzip2; unpack it first"),
    (0, b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (0, b"\x89HDF", "an HDF5 file (Keras?); export the model to ONNX"),
    (0, b"\x93NUMPY", "a NumPy array, not a model"),
    (
        0,
        b"GGUF",
        "a model of llama.cpp (GGUF); give the directory of transformers that it was made from, and convert the result",
    ),
    (4, b"TFL3", "a model of TensorFlow Lite; export the network that it was made from to ONNX"),
    (4, b"ORTM", "a model in onnxruntime's own format; give the .onnx file that it was made from"),
    (0, b"ftrt", "an engine of TensorRT, made for one kind of GPU; give the .onnx file that it was made from"),
    (0, b"7767517", "a model of ncnn; give the network that it was made from"),
    (257, b"ustar", "a tar archive; unpack it and give the checkpoint inside"),
    (
        0,
        b"\x80",
        "a pickle that torch.save did not write; save the weights with torch.save(model.state_dict(), path)",
    ),
)
"""Where in a file, what stands there, what it is."""
_ARCHIVED = (
    ("model.weights.h5", "an archive of Keras; export the model to ONNX"),
    ("MAR-INF/MANIFEST.json", "an archive of TorchServe; unpack it and give the checkpoint inside"),
    ("com.apple.CoreML", "a package of Core ML; give the network that it was made from"),
)
"""Ends of names in a zip archive, and what it is."""
_WIRE_VARINT, _WIRE_64, _WIRE_BYTES, _WIRE_32 = 0, 1, 2, 5
_ONNX_FIELDS = {
    1: _WIRE_VARINT, 2: _WIRE_BYTES, 3: _WIRE_BYTES, 4: _WIRE_BYTES, 5: _WIRE_VARINT, 6: _WIRE_BYTES,
    7: _WIRE_BYTES, 8: _WIRE_BYTES, 14: _WIRE_BYTES, 20: _WIRE_BYTES, 25: _WIRE_BYTES, 26: _WIRE_BYTES,
}  # fmt: skip
"""Field number -> wire type of `ModelProto` in onnx.proto; 7 is the graph."""
_ONNX_GRAPH = 7


def detect(file: BinaryIO, name: str) -> Kind:
    """The kind of an open, seekable file, which is left at its start.

    Raises:  ModelError saying what the file is instead.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if size == 0:
        raise ModelError(f"{name}: is empty (0 bytes); was its writing or download cut off?")
    try:
        kind = _kind(file, head, size, name)
    finally:
        file.seek(0)
    if kind is None:
        # Two fields, so that a stray byte or two is not taken for the start of a model.
        fields, cut_off = _onnx_fields(file, size)
        if cut_off and len(fields) > 1:
            raise ModelError(f"{name}: is a cut-off ONNX model ({size:,} bytes); copy or download it again")
        raise ModelError(f"{name}: is {_describe(head)}")
    return kind


def is_onnx(path: str | Path) -> bool:
    """Whether the file is laid out as an ONNX model; False for what is missing or no regular file."""
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return False
            return _is_onnx(file, file.seek(0, os.SEEK_END))
    except OSError:
        return False


def _kind(file: BinaryIO, head: bytes, size: int, name: str) -> Kind | None:
    if head.startswith(b"PK"):
        return _zip_kind(file, size, name)
    if head.startswith(_LEGACY_TORCH):
        return Kind.TORCH
    if 2 < int.from_bytes(head[:8], "little") <= _LONGEST_SAFETENSORS_HEADER and head[8:9] == b"{":
        return Kind.SAFETENSORS
    return Kind.ONNX if _is_onnx(file, size) else None


def _zip_kind(file: BinaryIO, size: int, name: str) -> Kind:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise ModelError(f"{name}: is a damaged or cut-off archive ({error}); copy or download it again") from error
    if sum(entry.file_size for entry in entries) > size:
        raise ModelError(f"{name}: the archive declares more data than it holds; re-save it with torch.save")
    inside = {entry.filename.partition("/")[2] or entry.filename for entry in entries}
    if any(part.startswith("code/") for part in inside) and "data.pkl" in inside:
        return Kind.TORCHSCRIPT
    if {"archive_format", "serialized_exported_program.json"} & (inside | {e.filename for e in entries}):
        return Kind.EXPORTED
    if "data.pkl" in inside:
        return Kind.TORCH
    if any(part.endswith(".npy") for part in inside):
        raise ModelError(f"{name}: is a NumPy archive, not a model; data is given with --data")
    for end, told in _ARCHIVED:
        if any(entry.filename.rstrip("/").endswith(end) for entry in entries):
            raise ModelError(f"{name}: is {told}")
    within = next((e.filename for e in entries if e.filename.endswith(MODEL_ENDS) and e.filename.isprintable()), None)
    if within is not None:
        raise ModelError(f"{name}: is a zip archive; unpack it and give {within[:60]} in it")
    raise ModelError(f"{name}: is a zip archive without a model in it")


def _is_onnx(file: BinaryIO, size: int) -> bool:
    fields, cut_off = _onnx_fields(file, size)
    return _ONNX_GRAPH in fields and not cut_off


def _onnx_fields(file: BinaryIO, size: int) -> tuple[set[int], bool]:
    """The outermost protobuf fields, and whether the file ends within one; none if any is not of a `ModelProto`."""
    file.seek(0)
    found: set[int] = set()
    while (at := file.tell()) < size:
        key = _varint(file)
        if key is None:
            return found, True
        if _ONNX_FIELDS.get(key >> 3) != key & 7:
            return set(), False
        length = _varint(file)
        found.add(key >> 3)
        if length is None or (key & 7 == _WIRE_BYTES and file.tell() + length > size):
            return found, True
        if key & 7 == _WIRE_BYTES:
            file.seek(length, os.SEEK_CUR)
        if file.tell() <= at:
            return set(), False
    return found, False


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _describe(head: bytes) -> str:
    for at, magic, text in _FOREIGN:
        if head[at : at + len(magic)] == magic:
            return text
    if b"<net " in head:
        return "the description of an OpenVINO model; give the network that it was made from"
    if head.lstrip()[:1] == b"<":
        return "a web page or XML, not a model; was a download refused?"
    try:
        io.TextIOWrapper(io.BytesIO(head), "utf-8", errors="strict").read(len(head) // 2)
        printable = not any(byte < 9 for byte in head)
    except UnicodeDecodeError:
        printable = False
    known = "known are .pt/.pth checkpoints, .safetensors and .onnx"
    return f"a text file, not a model; {known}" if printable else f"no model that is known here; {known}"
