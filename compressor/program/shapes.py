"""Shapes and element types of every value in a graph, found without computing; it must never touch real tensor data.

The graph is run on fake tensors at one concrete batch size: sizes are plain integers for whoever asks, and a graph
whose arguments do not fit its tensors is found out here, before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.errors import ModelError
from compressor.program.module import ProgramModule
from compressor.program.spec import InputSpec


@dataclass(frozen=True)
class TensorShape:
    """Sizes and element type of one tensor."""

    sizes: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        n = 1
        for size in self.sizes:
            n *= size
        return n


Shape: TypeAlias = "TensorShape | tuple[Shape, ...] | int | float | bool | None"
Shapes: TypeAlias = Mapping[str, Shape]


def infer_shapes(module: ProgramModule, inputs: tuple[InputSpec, ...], batch: int) -> Shapes:
    """Shape of every node's value by node name; sizes computed in the graph come out as integers.

    Raises:  ModelError naming the node whose arguments do not fit.
    """
    values: dict[str, Any] = {}
    given = iter(inputs)
    tensors = module.tensors()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=False) as mode:
        for node in module.graph.nodes:
            if node.op == "placeholder":
                spec = next(given, None)
                if spec is None:
                    raise ModelError(f"the graph has an input {node.name} that the input specification lacks")
                values[node.name] = torch.empty(spec.concrete(batch), dtype=spec.torch_dtype)
            elif node.op == "get_attr":
                values[node.name] = mode.from_tensor(tensors[node.target], static_shapes=True)
            elif node.op == "call_function":
                values[node.name] = _run(node, values)
    return {name: _describe(value) for name, value in values.items()}


def _run(node: Node, values: dict[str, Any]) -> Any:
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n.name])
    try:
        return node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{node.name}: {node.target} does not fit its inputs: {first[:200]}") from error


def _describe(value: Any) -> Shape:
    if isinstance(value, Tensor):
        return TensorShape(tuple(int(size) for size in value.shape), value.dtype)
    if isinstance(value, (tuple, list)):
        return tuple(_describe(part) for part in value)
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    return int(value)
