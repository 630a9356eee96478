"""A graph rewritten to compute in another floating type, whatever types it names.

It must never hold how far results in two precisions may be apart.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from compressor.typed_torch import DispatchMode

aten = torch.ops.aten


@contextmanager
def default_type(dtype: torch.dtype) -> Generator[None]:
    """torch's own default type, for operators that name none: `zeros`, `arange`, or an integer times a fraction."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _ComputingIn(DispatchMode):
    """Casts what every operator reads; what an operator writes into keeps its type, and others follow it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            return func(*args, **(kwargs or {}))

        def wide(part: object) -> object:
            if isinstance(part, Tensor):
                return part.to(self._dtype) if part.is_floating_point() and part.dtype != self._dtype else part
            return self._dtype if _is_floating(part) else part

        args, kwargs = tree_map(wide, (args, kwargs or {}))
        return func(*args, **kwargs)


@contextmanager
def computing_in(dtype: torch.dtype) -> Generator[None]:
    """Networks that are run in the block compute in `dtype`, whatever their weights are stored in: each is cast where
    it is read, so that no second copy of all of them is held. For code that is not ours; of a graph, `in_precision`."""
    with default_type(dtype), _ComputingIn(dtype):
        yield


def recast(graph: fx.Graph, dtype: torch.dtype, only: Collection[torch.dtype] | None = None) -> None:
    """Rewrite in place every floating type, or `only` these, that casts and constants (position encodings, first
    states) name."""

    def retyped(part: object) -> object:
        return dtype if _is_floating(part) and (only is None or part in only) else part

    for node in graph.nodes:
        args, kwargs = tree_map(retyped, (node.args, node.kwargs))
        node.args, node.kwargs = args, kwargs


def cast_reads(graph: fx.Graph, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Put, in place, a cast between every floating tensor of another type and each operator that reads it."""
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        tensor = tensors[str(node.target)]
        if not tensor.is_floating_point() or tensor.dtype == dtype:
            continue
        for reader in list(node.users):
            with graph.inserting_before(reader):
                cast = graph.call_function(aten.to.dtype, (node, dtype))
            reader.replace_input_with(node, cast)


def writes_in_place(graph: fx.Graph) -> bool:
    """Whether an operator writes into what it is given, which may be a tensor of the network."""
    return any(bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False)) for node in graph.nodes)


def _is_floating(part: Any) -> bool:
    return isinstance(part, torch.dtype) and part.is_floating_point
