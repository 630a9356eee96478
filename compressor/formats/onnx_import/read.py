"""An ONNX file -> its graph and tensors, bounded by what the file really holds.

It must never follow a path out of the model's folder, nor allocate by what a file only declares.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, numpy_helper
from torch import Tensor

from compressor.errors import ModelError, first_line
from compressor.formats.onnx_import.budget import LARGEST_VALUE, Budget
from compressor.formats.onnx_import.quantised import without_quantisation
from compressor.formats.onnx_import.written_out import inlined
from compressor.program.element_types import ELEMENT_TYPES
from compressor.typed_torch import from_numpy

_checker: Any = onnx.checker

OLDEST, NEWEST = 9, 22
"""Opsets whose operators the table was checked against. Newer ones are tried: what changed has a new version."""

OLDEST_CONVERTED = 7
"""Opset from which on onnx itself brings a file to `OLDEST`; it is compared with the file as it was."""

_LARGEST_PROTO = 2**31 - 1
"""What protobuf can parse."""
_MOST_SHARING = 16
"""Times that the tensors in another file may be larger than it is: exporters store equal ones once, never so many."""

_HALF = tuple(kind.torch_dtype for kind in ELEMENT_TYPES if kind.is_half)


@dataclass
class OnnxModel:
    """A parsed model: nodes in order, tensors by name, what the file says about its own making."""

    graph: onnx.GraphProto
    opset: int
    tensors: dict[str, Tensor]
    producer: str
    notes: list[str] = field(default_factory=list[str])
    kinds: frozenset[int] = frozenset()
    """ONNX's numbers of the element types that the tensors had in the file."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    was_quantised: bool = False
    """Whether it is the float network that a quantised file stands for."""
    budget: Budget = field(default_factory=Budget)


def read_model(file: BinaryIO, name: str, folder: Path | None) -> OnnxModel:
    """The model in an open file; weights in other files are read from `folder` only.

    Raises:  ModelError if it is damaged, too new, breaks the format's own rules or reaches out of its folder.
    """
    proto = _parsed(file, name)
    opset = _opset(proto, name)
    proto = inlined(proto, name)
    notes = []
    if opset < OLDEST:
        proto = _converted(proto, opset, name)
        notes, opset = [f"was written in opset {opset} and converted to {OLDEST}"], OLDEST
    reader = _Weights(name, folder)
    n_quantised = _in_float(proto, reader, opset, name)
    if n_quantised:
        notes.append(
            f"quantised: {n_quantised} steps to whole numbers and back were left out, what is pruned is the float "
            "network; compress export --int8 quantises it again"
        )
    tensors = {tensor.name: reader.read(tensor) for tensor in proto.graph.initializer}
    for sparse in proto.graph.sparse_initializer:
        tensors[sparse.values.name] = reader.read_sparse(sparse)
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    del proto.graph.initializer[:]
    del proto.graph.sparse_initializer[:]
    _check(proto, tensors, kinds, name)
    version = f"{proto.producer_name} {proto.producer_version}".strip()
    if reader.n_halves:
        notes.append(f"{reader.n_halves} tensors of 16 bits were widened to float32")
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    producer = version or "unknown producer"
    reader.budget.n_held = sum(tensor.numel() for tensor in tensors.values())
    return OnnxModel(
        proto.graph,
        opset,
        tensors,
        producer,
        notes,
        frozenset(kinds.values()),
        metadata,
        n_quantised > 0,
        reader.budget,
    )


def read_proto(file: BinaryIO, name: str, folder: Path | None) -> onnx.ModelProto:
    """The whole model in an open file, its functions written out, in floats. Raises: ModelError as `read_model`."""
    proto = inlined(_parsed(file, name), name)
    _in_float(proto, _Weights(name, folder), _opset(proto, name), name)
    return proto


def _in_float(proto: onnx.ModelProto, reader: _Weights, opset: int, name: str) -> int:
    """How many steps to whole numbers and back were taken out."""
    return without_quantisation(proto.graph, opset, reader.read, name)


def tensor_of(proto: TensorProto, name: str) -> Tensor:
    """The tensor inside an attribute of a node. Raises: ModelError if it is damaged or outside the file."""
    return _Weights(name, None).read(proto)


def _parsed(file: BinaryIO, name: str) -> onnx.ModelProto:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > _LARGEST_PROTO:
        raise ModelError(f"{name}: is larger than the 2 GB that ONNX allows for one file; save it with external data")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(file.read())
    except (DecodeError, ValueError, TypeError) as error:
        raise ModelError(f"{name}: is damaged: it cannot be parsed as ONNX ({error})") from error
    return proto


def _opset(proto: onnx.ModelProto, name: str) -> int:
    found = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    opset = found[0] if found else 1
    if opset < OLDEST_CONVERTED:
        raise ModelError(
            f"{name}: is written in opset {opset}, the oldest that can be read is {OLDEST_CONVERTED}\n"
            f"convert it with onnx.version_converter.convert_version(model, {NEWEST})"
        )
    if opset > onnx.defs.onnx_opset_version():
        raise ModelError(
            f"{name}: is written in opset {opset}, the installed onnx knows up to {onnx.defs.onnx_opset_version()}"
        )
    return opset


def _converted(proto: onnx.ModelProto, opset: int, name: str) -> onnx.ModelProto:
    """The model in the oldest opset that the table knows."""
    from onnx import version_converter

    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise ModelError(f"{name}: is written in opset {opset} with weights elsewhere; save it in one file first")
    try:
        return version_converter.convert_version(proto, OLDEST)
    except Exception as error:  # onnx raises its own C++ errors here
        told = f"is written in opset {opset}, which onnx cannot convert to {OLDEST}: {first_line(error)}"
        raise ModelError(f"{name}: {told}") from error


def _check(proto: onnx.ModelProto, tensors: dict[str, Tensor], kinds: dict[str, int], name: str) -> None:
    """The format's own rules, on the graph without its weights: they may be larger than what the checker can take."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(proto)
    inputs = {value.name for value in skeleton.graph.input}
    for key, tensor in tensors.items():
        if key not in inputs:
            shape = list(tensor.shape)
            kind = kinds.get(key, TensorProto.FLOAT)
            skeleton.graph.input.append(onnx.helper.make_tensor_value_info(key, kind, shape))
    for value in (*skeleton.graph.input, *skeleton.graph.output):
        if value.type.HasField("tensor_type"):  # runtimes do without a shape, only the checker wants one
            value.type.tensor_type.shape.SetInParent()
    try:
        _checker.check_model(skeleton)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{name}: is not valid ONNX: {first_line(error)}") from error


class _Weights:
    """Reads tensors, from the file itself or from those beside it."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name, self._folder = name, folder
        self.n_halves = 0
        self.budget = Budget()
        self._n_outside: dict[Path, int] = {}

    def read(self, proto: TensorProto) -> Tensor:
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(proto, f"has an element type that is not supported ({proto.data_type})") from error
        if proto.data_type == TensorProto.STRING or any(size < 0 for size in proto.dims):
            raise self._error(proto, "holds text or has a negative size")
        numel = math.prod(proto.dims)
        if numel == 0 and max(proto.dims, default=0) > LARGEST_VALUE:
            raise self._error(proto, f"has the impossible size {max(proto.dims):,}")
        if proto.data_location == TensorProto.EXTERNAL:
            array = self._external(proto, np.dtype(dtype), numel)
        else:
            array = self._internal(proto, np.dtype(dtype), numel)
        return self._widened(proto, array)

    def read_sparse(self, proto: onnx.SparseTensorProto) -> Tensor:
        shape = list(proto.dims)
        numel = math.prod(shape)
        if any(size < 0 for size in shape):
            raise self._error(proto.values, f"declares {numel:,} elements")
        values, indices = self.read(proto.values), self.read(proto.indices)
        try:
            self.budget.n_held += values.numel()
            self.budget.take_elements(numel)
        except ModelError as error:
            raise ModelError(f"{self._name}: sparse tensor {proto.values.name[:80]}: {error}") from error
        if indices.dim() == 2:
            strides = torch.tensor([math.prod(shape[i + 1 :]) for i in range(len(shape))])
            indices = (indices * strides).sum(1)
        if indices.shape != values.shape or (numel and indices.numel() and not 0 <= int(indices.min()) <= numel - 1):
            raise self._error(proto.values, "has positions that do not fit its values")
        if indices.numel() and int(indices.max()) >= numel:
            raise self._error(proto.values, "has positions outside its shape")
        return torch.zeros(numel, dtype=values.dtype).scatter_(0, indices, values).reshape(shape)

    def _internal(self, proto: TensorProto, dtype: np.dtype, numel: int) -> np.ndarray:
        """Checked before anything is made of the size that the file declares."""
        if proto.HasField("raw_data"):
            held = len(proto.raw_data) * 8 // _bits(proto.data_type)
        else:
            held = max(len(getattr(proto, name)) for name in _TYPED)
        if held < numel:
            raise self._error(proto, f"declares {numel:,} elements and holds {held:,}")
        try:
            return np.array(numpy_helper.to_array(proto))
        except (ValueError, TypeError, RuntimeError) as error:
            raise self._error(proto, f"is damaged: {first_line(error)}") from error

    def _external(self, proto: TensorProto, dtype: np.dtype, numel: int) -> np.ndarray:
        try:
            info = external_data_helper.ExternalDataInfo(proto)
            path = self._beside(proto, info.location)
            offset = int(info.offset or 0)
        except ValueError as error:  # a null character, a negative offset, an offset that is no number
            told = f"says where its weights are in a way that cannot be: {first_line(error)}"
            raise self._error(proto, told) from error
        n_bytes = numel * dtype.itemsize
        try:
            size = path.stat().st_size
            if offset < 0 or offset + n_bytes > size or (info.length is not None and int(info.length) < n_bytes):
                raise self._error(proto, f"declares {n_bytes:,} bytes at {offset:,}, {path.name} has {size:,}")
            self._n_outside[path] = self._n_outside.get(path, 0) + n_bytes
            if self._n_outside[path] > _MOST_SHARING * size:
                raise self._error(proto, f"is one of too many that share the {size:,} bytes of {path.name}")
            return np.fromfile(path, dtype=dtype, count=numel, offset=offset).reshape(tuple(proto.dims))
        except OSError as error:
            raise ModelError(
                f"{self._name}: its weights are in {info.location}, which cannot be read: {error.strerror}\n"
                "put it beside the model"
            ) from error

    def _beside(self, proto: TensorProto, location: str) -> Path:
        """The file in the model's own folder. Raises: ModelError if it is anywhere else."""
        if self._folder is None:
            raise ModelError(
                f"{self._name}: keeps weights in another file ({location}); give its path instead of a stream"
            )
        folder = os.path.realpath(self._folder)
        path = os.path.realpath(os.path.join(folder, location))
        if not location or os.path.isabs(location) or os.path.commonpath([folder, path]) != folder:
            raise self._error(proto, f"points to {location}, outside the model's folder; the file cannot be trusted")
        return Path(path)

    def _widened(self, proto: TensorProto, array: np.ndarray) -> Tensor:
        if proto.data_type == TensorProto.BFLOAT16:
            tensor = from_numpy(np.ascontiguousarray(array.astype(np.float32)))
            self.n_halves += 1
            return tensor
        try:
            tensor = from_numpy(np.ascontiguousarray(array)).reshape(tuple(array.shape))
        except TypeError as error:
            raise self._error(proto, f"has an element type that is not supported ({array.dtype})") from error
        if tensor.dtype in _HALF:
            self.n_halves += 1
            return tensor.float()
        return tensor

    def _error(self, proto: TensorProto, what: str) -> ModelError:
        return ModelError(f"{self._name}: tensor {proto.name[:80] or 'without a name'} {what}")


_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_NIBBLES = (TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1)


def _bits(data_type: int) -> int:
    return 4 if data_type in _NIBBLES else np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)).itemsize * 8


def needed_nodes(graph: onnx.GraphProto, outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in order: what an exporter left behind unread is not imported."""
    wanted = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
            for inner in subgraphs(node):
                wanted.update(name for part in inner.node for name in part.input)
                wanted.update(value.name for value in inner.output)
    return kept[::-1]


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes, and those in them."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
            for inner in attribute.g.node:
                yield from subgraphs(inner)
