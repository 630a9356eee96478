"""How much memory and work running a graph takes, estimated from shapes before anything runs, and how much it may.

It must never compute a value, and never be exact: it is there to tell a network from a few bytes that ask for days.
Everything grows with what the file holds: a network does some work for each of its numbers, and only so much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.errors import ModelError
from compressor.models.budget import memory_bytes
from compressor.narrowing import is_row
from compressor.program import arguments, families
from compressor.program.memory import may_alias
from compressor.program.shapes import Shape, Shapes, TensorShape
from compressor.units import format_bytes

_LARGEST_DIMENSION = 2**24
"""Of a value; ids are given out one by one along some. The weights of a file may have larger ones."""

_SOME_BYTES = 2**31
_TIMES_THE_FILE = 200
"""Values that live at once, in bytes of the tensors: a U-Net at 512 x 512 takes 20 times its weights."""
_TIMES_THE_INPUT = 128
_MOST_BYTES_BY_INPUT = 2**33
"""The same in bytes of the inputs, which a file merely claims: few weights at 64 channels of a large picture."""

_SOME_WORK = 2**34
_WORK_PER_ELEMENT = 2**20
_WORK_PER_PAIR = 4
_MOST_WORK_BY_INPUT = 2**41
"""Multiply-adds for each element of the tensors, and for each that is paired with one of the inputs: a convolution has
as many as positions."""

_OF_AN_ELEMENT = 64
"""What making or reading one element may take: the slowest functions of one number take 100 ns."""
_OF_A_STEP = 2**15
"""What one step of a recurrent layer takes beside its products."""
_OF_A_DECOMPOSITION = 64
"""Multiply-adds for each n·m·m of a matrix that is taken apart: some do it in many sweeps."""

_REFORMING = ("reshape", "contiguous", "flatten", "to", "view_as", "reshape_as", "ravel", "unflatten")
"""Copies as often as not, though they may return their operand."""

_Given: TypeAlias = Mapping[str, Any]


def check_budget(graph: fx.Graph, tensors: Mapping[str, Tensor], shapes: Shapes) -> None:
    """Nothing, when running the graph once takes what a network of such tensors may take.

    Raises:  ModelError naming the node that takes too much, and the limit.
    """
    n_elements = sum(tensor.numel() for tensor in tensors.values())
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    widest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    inputs = [shape for node in graph.nodes if node.op == "placeholder" for shape in _shapes_in(shapes.get(node.name))]
    by_input = min(_MOST_BYTES_BY_INPUT, _TIMES_THE_INPUT * sum(map(_bytes, inputs)))
    by_pair = min(_MOST_WORK_BY_INPUT, _WORK_PER_PAIR * n_elements * sum(shape.numel for shape in inputs))
    _check_dimensions(graph, shapes, max(_LARGEST_DIMENSION, widest))
    _check_memory(graph, shapes, min(memory_bytes(), max(_SOME_BYTES, _TIMES_THE_FILE * n_bytes, by_input)))
    _check_work(graph, shapes, max(_SOME_WORK, _WORK_PER_ELEMENT * n_elements, by_pair))


def _check_dimensions(graph: fx.Graph, shapes: Shapes, limit: int) -> None:
    for node in graph.nodes:
        for shape in _shapes_in(shapes.get(node.name)):
            if max(shape.sizes, default=0) > limit:
                told = f"a dimension of {max(shape.sizes):,}; more than {limit:,} are not read"
                raise ModelError(f"{node.name}: has {told}")


def _check_memory(graph: fx.Graph, shapes: Shapes, limit: int) -> None:
    """Counts the values that live at once, each from where it is made to where it is read last."""
    nodes = list(graph.nodes)
    last = {read: reader for reader in nodes for read in reader.all_input_nodes}
    dying: dict[Node, list[Node]] = {}
    for read, reader in last.items():
        dying.setdefault(reader, []).append(read)
    held = {node: _bytes_of(node, shapes) for node in nodes}
    living = 0
    for node in nodes:
        living += held[node]
        if living + (scratch := _scratch_bytes(node, shapes)) > limit:
            told = f"{format_bytes(living + scratch)} would be held at once, more than {format_bytes(limit)}"
            raise ModelError(f"{node.name}: {told}\na network of such small weights needs less; {_DISTRUST}")
        living -= sum(held[read] for read in dying.get(node, ()))


_DISTRUST = "the file cannot be trusted, or --input is too large"


def _bytes_of(node: Node, shapes: Shapes) -> int:
    """What the value adds to memory: nothing where it is a view of another."""
    if node.op == "get_attr":
        return 0
    if node.op == "output":  # whoever called the network compares, copies or writes what it returns
        return sum(_bytes(shape) for read in node.all_input_nodes for shape in _shapes_in(shapes.get(read.name)))
    if may_alias(node) and families.operator_name(node.target) not in _REFORMING:
        return 0
    return sum(map(_bytes, _shapes_in(shapes.get(node.name))))


def _bytes(shape: TensorShape) -> int:
    return shape.numel * shape.dtype.itemsize


def _shapes_in(shape: Shape) -> Iterator[TensorShape]:
    if isinstance(shape, TensorShape):
        yield shape
    elif isinstance(shape, tuple):
        for part in shape:
            yield from _shapes_in(part)


def _scratch_bytes(node: Node, shapes: Shapes) -> int:
    """What the operator takes while it runs: windows written out side by side, scores of attention, copies."""
    if node.op != "call_function":
        return 0
    given, read, made = _call(node, shapes)
    itemsize = max((shape.dtype.itemsize for shape in (*read, *made)), default=1)
    if node.target in families.WITH_FILTERS and isinstance(weight := given.get("weight"), TensorShape):
        if weight.dtype == torch.float32:  # its kernels read windows where they are
            return 0
        filters = max(weight.sizes[families.family_of(node.target).filter_dim or 0], 1)  # type: ignore[union-attr]
        return itemsize * (_products(node, given, read, made) // filters)
    if node.target in families.ATTENTION:
        return itemsize * _scores(given)
    if may_alias(node) or families.works_by_element(node.target):
        return 0
    return itemsize * sum(shape.numel for shape in read)


def _check_work(graph: fx.Graph, shapes: Shapes, limit: int) -> None:
    total = 0
    for node in graph.nodes:
        if node.op == "call_function" and hasattr(node.target, "_schema"):
            total += _work(node, shapes)
        if total > limit:
            told = f"running it takes more than {limit:,} steps up to here"
            raise ModelError(f"{node.name}: {told}\na network of such small weights needs less; {_DISTRUST}")


def _work(node: Node, shapes: Shapes) -> int:
    """Multiply-adds, and so many for each element that is read or made."""
    given, read, made = _call(node, shapes)
    if may_alias(node) and families.operator_name(node.target) not in _REFORMING:
        return 0
    touched = sum(shape.numel for shape in (*read, *made))
    return _OF_AN_ELEMENT * touched + _products(node, given, read, made)


def _call(node: Node, shapes: Shapes) -> tuple[_Given, list[TensorShape], list[TensorShape]]:
    """Arguments with shapes in place of tensors, the tensors among them, and those of the result."""
    looked_up: Any = shapes  # map_arg is typed for nodes only
    given = map_arg(arguments(node), lambda n: looked_up.get(n.name))
    read = [shape for part in node.all_input_nodes for shape in _shapes_in(shapes.get(part.name))]
    return given, read, list(_shapes_in(shapes.get(node.name)))


def _products(node: Node, given: _Given, read: list[TensorShape], made: list[TensorShape]) -> int:
    """At least as many as the operator multiplies, of whatever kind it is."""
    target = node.target
    out = sum(shape.numel for shape in made)
    weight = given.get("weight")
    if target in families.WITH_FILTERS and isinstance(weight, TensorShape) and len(weight.sizes) > 1:
        family = families.family_of(target)
        assert family is not None and family.filter_dim is not None and family.channel_dim is not None
        transposed = target in families.TRANSPOSED_CONVOLUTIONS
        along = weight.sizes[family.channel_dim if transposed else family.filter_dim]
        return (read[0].numel if transposed and read else out) * weight.numel // max(along, 1)
    if target in families.ATTENTION:
        return 2 * _scores(given) * max(given["query"].sizes[-1], given["value"].sizes[-1], 1)
    if target in families.EINSUM:
        return _of_equation(given)
    if target in families.RECURRENT | families.RECURRENT_CELL:
        return _recurrent(target, read)
    if is_row(window := given.get("kernel_size")):
        return out * math.prod(max(size, 1) for size in window if isinstance(size, int))
    return _other(target, read, made)


def _other(target: Any, read: list[TensorShape], made: list[TensorShape]) -> int:
    """Products of matrices multiply as many as the root of what their three sizes give; what takes one apart, its rows
    times its area; sorting a little for each element; and the rest nothing."""
    name = families.operator_name(target)
    tensors = sorted((shape.numel for shape in (*read, *made)), reverse=True)[:3]
    if name.startswith("linalg_") or name in ("inverse", "det", "matrix_exp"):
        return _OF_A_DECOMPOSITION * sum(shape.numel * max(shape.sizes, default=1) for shape in (*read, *made))
    if target in families.SUMS or name in ("cdist", "cov", "kron", "outer", "ger", "trace"):
        return math.isqrt(math.prod(tensors)) if len(tensors) == 3 else 0
    return 32 * sum(shape.numel for shape in read)


def _scores(given: _Given) -> int:
    query, key = given["query"], given["key"]
    if not all(isinstance(one, TensorShape) and len(one.sizes) > 1 for one in (query, key)):
        return 0
    return query.numel // max(query.sizes[-1], 1) * key.sizes[-2]


def _of_equation(given: _Given) -> int:
    """The lengths of all letters multiplied, whatever order they are summed in."""
    sizes: dict[tuple[int, str] | str, int] = {}
    inputs = str(given["equation"]).replace(" ", "").split("->")[0].split(",")
    for operand, (letters, shape) in enumerate(zip(inputs, given["tensors"], strict=False)):
        named = letters.replace("...", "." * (len(shape.sizes) - len(letters.replace("...", ""))))
        for dim, (letter, size) in enumerate(zip(named, shape.sizes, strict=False)):
            key = letter if letter != "." else (len(shape.sizes) - dim, "." if operand >= 0 else "")
            sizes[key] = max(sizes.get(key, 1), size)
    return math.prod(sizes.values())


def _recurrent(target: Any, read: list[TensorShape]) -> int:
    """Every step of every layer, and all weights for each of its rows."""
    if not read:
        return 0
    first, *weights = read
    rows = first.numel // max(first.sizes[-1], 1) if first.sizes else 1
    steps = rows if target in families.RECURRENT else 1
    return steps * max(len(weights), 1) * _OF_A_STEP + rows * sum(shape.numel for shape in weights)
