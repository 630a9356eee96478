"""A model with its own functions written out, counted before that is done; it must never run a function.

Functions that call each other twice make millions of nodes out of some dozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from compressor.errors import ModelError, first_line
from compressor.formats.onnx_import.budget import MOST_DEPTH, MOST_NODES

_Key = tuple[str, str]


def inlined(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model without functions of its own. Raises: ModelError for too many nodes, or functions in a circle."""
    functions = {(function.domain, function.name): function for function in proto.functions}
    n_nodes = _Counted(functions, name).of(proto.graph.node)
    if n_nodes > MOST_NODES:
        raise ModelError(f"{name}: has {n_nodes:,} nodes once its functions are written out; at most {MOST_NODES:,}")
    if not functions:
        return proto
    from onnx import inliner

    try:
        return inliner.inline_local_functions(proto)
    except Exception as error:  # onnx raises its own C++ errors here
        raise ModelError(f"{name}: its functions cannot be written out: {first_line(error)}") from error


class _Counted:
    """Nodes of each function once it is written out."""

    def __init__(self, functions: dict[_Key, onnx.FunctionProto], name: str) -> None:
        self._functions, self._name = functions, name
        self._known: dict[_Key, int] = {}
        self._open: list[_Key] = []

    def of(self, nodes: Sequence[onnx.NodeProto]) -> int:
        """Those of a graph, its branches' too."""
        return sum(self._of_call((node.domain, node.op_type)) for node in _all(nodes))

    def _of_call(self, key: _Key) -> int:
        if key not in self._functions:
            return 1
        if key in self._open:
            raise ModelError(f"{self._name}: its function {key[1]} calls itself; the file cannot be trusted")
        if len(self._open) > MOST_DEPTH:
            raise ModelError(f"{self._name}: its functions call one another more than {MOST_DEPTH} deep")
        if key not in self._known:
            self._open.append(key)
            self._known[key] = self.of(self._functions[key].node)
            self._open.pop()
        return self._known[key]


def _all(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting += [entry.g.node for entry in node.attribute if entry.type == onnx.AttributeProto.GRAPH]
            waiting += [g.node for entry in node.attribute for g in entry.graphs]
