"""Shapes and element types of every value in a graph, found without computing; it must never touch real tensor data.

Sizes are plain integers at one concrete batch size: right after a capture they are read off the trace; otherwise the
graph is run without data, and one whose arguments do not fit its tensors is found out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.errors import ModelError, first_line
from compressor.narrowing import is_row
from compressor.program import families
from compressor.program.arguments import has_argument
from compressor.program.module import ProgramModule
from compressor.program.spec import InputSpec
from compressor.typed_torch import symbol_of
from compressor.units import format_dtype

_META = torch.device("meta")
_LIKE_FIRST = families.BATCH_NORM | families.ACTIVATIONS | families.DROPOUT
"""Operators whose result is like their first argument, where all others have one value per channel. Two thirds of the
time went into these: their meta forms are written in Python."""

_ONE_TYPE = families.WITH_FILTERS | families.PRODUCTS | families.ADDED_PRODUCTS
"""Operators that want one element type; the meta forms of most do not look."""

_LARGEST_SIZE = 2**63
_MOST_PARTS = 2**16
"""Tensors that one operator may return: a forged `split` into single elements took 95 s and 13 GB without any data."""


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
    placeholders = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    if len(placeholders) > len(inputs):
        raise ModelError(f"the graph has an input {placeholders[len(inputs)]} that the input specification lacks")
    tensors = module.tensors()
    sizes = [spec.concrete(batch) for spec in inputs]
    try:  # meta tensors cost a third of what fake ones cost the first time; operators without a meta form fail here
        given = [torch.empty(size, dtype=s.torch_dtype, device=_META) for size, s in zip(sizes, inputs, strict=True)]
        return _propagate(module.graph, given, {name: _like(t) for name, t in tensors.items()}, on_meta=True)
    except ModelError:
        pass
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        given = [torch.empty(size, dtype=s.torch_dtype) for size, s in zip(sizes, inputs, strict=True)]
        fakes = {name: mode.from_tensor(tensor, static_shapes=True) for name, tensor in tensors.items()}
        return _propagate(module.graph, given, fakes, on_meta=False)


def traced_shapes(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> Shapes | None:
    """The shapes that `torch.export` noted while it traced, at its example's batch; None where it noted none."""
    found: dict[str, Shape] = {}
    for node in graph.nodes:
        if node.op == "output":
            continue
        value = tensors.get(node.target) if node.op == "get_attr" else node.meta.get("val")
        if value is None:
            return None
        try:
            found[node.name] = _describe(value)
        except AttributeError:  # a size that depends on data has no hint
            return None
    return found


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)


@torch.no_grad()
def _propagate(graph: fx.Graph, inputs: list[Tensor], tensors: Mapping[str, Tensor], *, on_meta: bool) -> Shapes:
    """Run the graph on tensors without data. Raises: ModelError naming the node that does not fit."""
    values: dict[str, Any] = {}
    given = iter(inputs)
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node.name] = next(given)
        elif node.op == "get_attr":
            values[node.name] = tensors[node.target]
        elif node.op == "call_function":
            values[node.name] = _run(node, values, on_meta)
    return {name: _describe(value) for name, value in values.items()}


def _run(node: Node, values: dict[str, Any], on_meta: bool) -> Any:
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n.name])
    if on_meta and node.target in _LIKE_FIRST and _per_channel(args, kwargs):
        return args[0]
    if on_meta and node.target in families.LINEAR and (result := _of_linear(*args, **kwargs)) is not None:
        return result
    if on_meta:  # a constant must not be made on a real device: its size may be anything in a forged graph
        args = tuple(_META if isinstance(arg, torch.device) else arg for arg in args)
        if has_argument(node.target, "device", beyond=len(args)):
            kwargs = {**kwargs, "device": _META}
    _refuse_many_parts(node, args, kwargs)
    types = {arg.dtype for arg in args if isinstance(arg, Tensor)} if node.target in _ONE_TYPE else ()
    if len(types) > 1:
        told = ", ".join(sorted(map(format_dtype, types)))
        raise ModelError(f"{node.name}: {node.target} does not fit its inputs: it takes one type, not {told}")
    try:
        result = _called(node, args, kwargs)
    except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
        raise ModelError(f"{node.name}: {node.target} does not fit its inputs: {first_line(error)}") from error
    if isinstance(result, int) and abs(result) >= _LARGEST_SIZE:  # a forged chain of products would grow without end
        raise ModelError(f"{node.name}: {node.target} computes a size that no tensor can have")
    return result


def _called(node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the operator returns; recurrent layers are called on one step, because they loop over all of them."""
    call: Any = node.target
    if node.target not in families.RECURRENT or kwargs or not has_argument(node.target, "batch_first"):
        return call(*args, **kwargs)
    steps = 1 if args[-1] else 0
    n_steps = args[0].shape[steps]
    first: Tensor
    first, *states = call(args[0].narrow(steps, 0, min(n_steps, 1)), *args[1:])
    sizes = list(first.shape)
    sizes[steps] = n_steps
    return (first.new_empty(sizes), *states)


def _refuse_many_parts(node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raises:  ModelError for an operator that would return more tensors than any network's does."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not any("List[" in str(returned.type) for returned in schema.returns):
        return
    values = {**dict(zip((a.name for a in schema.arguments), args, strict=False)), **kwargs}
    tensor, dim = values.get("self"), values.get("dim", 0)
    along = tensor.shape[int(dim)] if isinstance(tensor, Tensor) and -tensor.dim() <= dim < tensor.dim() else 0
    if isinstance(size := values.get("split_size"), int):
        n_parts = -(-along // max(size, 1))
    elif families.operator_name(node.target) == "unbind":
        n_parts = along
    else:
        given = (values.get(name, 0) for name in ("chunks", "sections", "bins"))
        n_parts = max(max(value, default=0) if is_row(value) else value for value in given)
    if isinstance(n_parts, int) and n_parts > _MOST_PARTS:
        raise ModelError(
            f"{node.name}: {node.target} makes {n_parts:,} tensors; more than {_MOST_PARTS:,} are not read"
        )


def _of_linear(input: Any, weight: Any, bias: Any = None) -> Tensor | None:
    """The result, where all fits; torch's own meta form imports its compiler, which takes half a second."""
    x = input
    if not all(isinstance(given, Tensor) and given.dtype == weight.dtype for given in (x, weight)) or x.dim() < 1:
        return None
    fits = weight.dim() == 2 and x.shape[-1] == weight.shape[1]
    fits = fits and (bias is None or (bias.dtype == x.dtype and tuple(bias.shape) == (weight.shape[0],)))
    return x.new_empty((*x.shape[:-1], weight.shape[0])) if fits else None


def _per_channel(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the first argument is a floating tensor, and every other one has its type and a value per channel."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return False
    first, *others = (arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor))
    return all(other.dtype == first.dtype and other.shape == first.shape[1:2] for other in others)


def _describe(value: Any) -> Shape:
    if isinstance(value, Tensor):
        return TensorShape(tuple(_concrete(size) for size in value.shape), value.dtype)
    if is_row(value):
        return tuple(_describe(part) for part in value)
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    return _concrete(value)


def _concrete(size: Any) -> Any:
    """A traced size at the example that it was traced with; asking it for an integer would fix it for good."""
    symbol = symbol_of(size)
    return int(size) if symbol is None else symbol.hint
