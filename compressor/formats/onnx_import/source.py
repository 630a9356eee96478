"""The file that is imported, run in onnxruntime: its outputs, or any value in it; it must never hold a judgment.

What is run is the file itself. Only what the importer reads otherwise too is changed before: 16-bit floats are widened,
nodes that no output needs are left out (a runtime computes those as well), a size that the user gave counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper
from torch import Tensor

from compressor.errors import VerificationError
from compressor.formats.onnx_import.read import OnnxModel, needed_nodes, read_proto, subgraphs
from compressor.formats.onnx_session import Session, open_session
from compressor.program import InputSpec

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES = ("to", "dtype")
"""Attributes of standard operators that name an element type."""

_STATUS = re.compile(r"while running (?P<node>.*?) node\. .*?Status Message: (?:/\S+ \S+ .*?\) )?(?P<told>.*)")


class NotRunError(Exception):
    """onnxruntime does not open or run the file; the text says why. Whoever compares notes it."""


@dataclass(frozen=True)
class Source:
    """An ONNX file for onnxruntime. `specs` are its inputs as they were imported, `model` what the importer read.

    `bound` are inputs that are always given the same number.
    """

    file: BinaryIO
    name: str
    folder: Path | None
    model: OnnxModel
    specs: tuple[InputSpec, ...]
    bound: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def run(self, inputs: Sequence[Tensor]) -> list[np.ndarray]:
        """The outputs of the file, computed node by node as it is written. Raises: NotRunError if they cannot be."""
        return self._outputs(self._plain, inputs)

    def run_optimised(self, inputs: Sequence[Tensor]) -> list[np.ndarray]:
        """The same after onnxruntime's own optimiser. Raises: as `run`."""
        return self._outputs(self._optimised, inputs)

    def values(self, names: Iterable[str], inputs: Sequence[Tensor]) -> dict[str, np.ndarray]:
        """Values inside the file, and its outputs, by name. Raises: as `run`."""
        proto = self._changed()
        known = [value.name for value in proto.graph.output]
        added = [name for name in dict.fromkeys(names) if name not in known]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
        found = self._outputs(_session(_serialised(proto), self.folder, optimised=False), inputs)
        return dict(zip([*known, *added], found, strict=True))

    def _outputs(self, session: Session, inputs: Sequence[Tensor]) -> list[np.ndarray]:
        own = [given.name for given in session.get_inputs() if given.name not in self.bound]
        tensors = {**dict(zip(own, inputs, strict=True)), **self.bound}
        feeds = {given.name: tensors[given.name].numpy() for given in session.get_inputs()}
        try:
            return [np.asarray(output) for output in session.run(None, feeds)]
        except Exception as error:
            raise NotRunError(f"onnxruntime cannot run it: {_line(error)}") from error

    @cached_property
    def _plain(self) -> Session:
        return _session(self._content, self.folder, optimised=False)

    @cached_property
    def _optimised(self) -> Session:
        return _session(self._content, self.folder, optimised=True)

    @cached_property
    def _content(self) -> bytes | str:
        """The file's path where it has one, else its bytes; those of a changed one where it cannot run as it is."""
        graph = self.model.graph
        is_whole = len(needed_nodes(graph, [value.name for value in graph.output])) == len(graph.node)
        if not is_whole or self._has_halves or self._is_resized or self.model.was_quantised:
            return _serialised(self._changed())
        path = getattr(self.file, "name", None)
        if self.folder is not None and isinstance(path, str) and os.path.isfile(path):
            return path
        self.file.seek(0)
        return self.file.read()

    @cached_property
    def _has_halves(self) -> bool:
        """Whether anything in the file is a 16-bit float."""
        values = (*self.model.graph.input, *self.model.graph.output)
        kinds = {value.type.tensor_type.elem_type for value in values} | self.model.kinds
        for graph in _graphs(self.model.graph):
            for attribute in (entry for node in graph.node for entry in node.attribute):
                kinds.add(attribute.t.data_type)
                if attribute.name in _TYPE_ATTRIBUTES:
                    kinds.add(attribute.i)
        return bool(kinds & set(_HALVES))

    @cached_property
    def _is_resized(self) -> bool:
        """Whether the user gave another size than the one in the file."""
        by_name = {value.name: value.type.tensor_type.shape.dim for value in self.model.graph.input}
        for spec in self.specs:
            held = [dim.dim_value for dim in by_name[spec.name]]
            if any(n and n != size for n, size in zip(held[1:], spec.shape[1:], strict=False)):
                return True
        return False

    def _changed(self) -> onnx.ModelProto:
        """The model, functions written out, without unneeded nodes, 16-bit floats and shapes that do not hold."""
        proto = read_proto(self.file, self.name, self.folder)
        graph = proto.graph
        needed = needed_nodes(graph, [value.name for value in graph.output])
        del graph.node[:]
        graph.node.extend(needed)
        if self._is_resized:
            del graph.value_info[:]
            for value in (*graph.input, *graph.output):
                for dim in value.type.tensor_type.shape.dim:
                    dim.Clear()
        if self._has_halves:
            if self.folder is not None:
                external_data_helper.load_external_data_for_model(proto, str(self.folder))
            _widen(graph)
        return proto


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    return [graph, *(inner for node in graph.node for inner in subgraphs(node))]


def _widen(model_graph: onnx.GraphProto) -> None:
    """Makes every 16-bit float in a graph, and every mention of that type, float32 (edits it in place)."""
    for graph in _graphs(model_graph):
        del graph.value_info[:]
        for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
            _widen_tensor(tensor)
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type in _HALVES:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for attribute in (entry for node in graph.node for entry in node.attribute):
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _HALVES:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _serialised(proto: onnx.ModelProto) -> bytes:
    try:
        return proto.SerializeToString()
    except Exception as error:  # protobuf has its own classes, by implementation
        raise NotRunError(f"it is too large to be changed for it ({_line(error)})") from error


def _session(content: bytes | str, folder: Path | None, *, optimised: bool) -> Session:
    try:
        return open_session(content, optimised=optimised, folder=folder)
    except VerificationError as error:
        raise NotRunError(f"onnxruntime cannot open it: {_line(error.__cause__ or error)}") from error


def _line(error: BaseException) -> str:
    """What onnxruntime says, without its codes and the places in its own source."""
    text = " ".join(str(error).split())
    found = _STATUS.search(text)
    told = found["told"] if found else text.removeprefix("[ONNXRuntimeError] : ")
    return (f"{found['node']}: {told}" if found else told)[:200]
