"""Which dimensions of which views are attention heads; it must never hold labels or decide what is removed.

A head is a dimension that a product of two activations runs over in parallel: a batch dimension of a matrix product
or of an attention. Followed backwards through operators that only move data or work element by element, such a
dimension ends at the view that split it from the embedding. Other splits (a channel shuffle) are never reached.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch.fx import Node

from compressor.axes.labels import factor
from compressor.program import Program, TensorShape, arguments
from compressor.program.shapes import Shapes

aten = torch.ops.aten

At: TypeAlias = tuple[Node, frozenset[int]]
"""Dimensions of a node's value."""

_PRODUCTS = {
    aten.matmul.default: ("self", "other"),
    aten.bmm.default: ("self", "mat2"),
    aten.baddbmm.default: ("batch1", "batch2"),
    aten.scaled_dot_product_attention.default: ("query", "key", "value"),
}
_RESHAPES = frozenset(
    {
        aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int, aten._unsafe_view.default,
        aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.view_as.default,
        aten.reshape_as.default, aten.ravel.default,
    }
)  # fmt: skip
_MOVES = frozenset(
    {
        aten.permute.default, aten.transpose.int, aten.t.default, aten.movedim.int, aten.movedim.intlist,
        aten.swapaxes.default, aten.swapdims.default, aten.mT.default, aten.select.int, aten.unbind.int,
    }
)  # fmt: skip
_SAME_DIMS = frozenset(
    {
        aten.slice.Tensor, aten.narrow.default, aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes,
        aten.chunk.default, aten.tensor_split.sections, aten.repeat_interleave.self_int, aten.flip.default,
        aten.softmax.int, aten.layer_norm.default, aten.rms_norm.default, aten.expand.default, aten.repeat.default,
        aten.contiguous.default, aten.clone.default, aten.dropout.default, aten.to.dtype, aten.cat.default,
    }
)  # fmt: skip
_KEEP_BATCH = frozenset(
    {
        aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.max_pool2d.default, aten.max_pool3d.default,
        aten.avg_pool2d.default, aten.avg_pool3d.default,
    }
)  # fmt: skip
"""Heads may lie in the batch of a convolution that all of them share."""


def find_head_splits(program: Program) -> dict[str, frozenset[int]]:
    """Dimensions that are heads, by the name of the view that made them."""
    found: dict[str, frozenset[int]] = {}
    seen: set[At] = set()
    waiting = [at for node in program.module.graph.nodes for at in _batched(node, program.shapes)]
    while waiting:
        node, dims = waiting.pop()
        dims = frozenset(dim for dim in dims if _sizes(node, program.shapes)[dim] > 1)
        if not dims or node.op != "call_function" or (node, dims) in seen:
            continue
        seen.add((node, dims))
        if node.target in _RESHAPES:
            split, before = _through_reshape(node, dims, program.shapes)
            found[node.name] = found.get(node.name, frozenset()) | split
            waiting.append(before)
        else:
            waiting.extend(_before(node, dims, program.shapes))
    return {name: dims for name, dims in found.items() if dims}


def _sizes(node: Any, shapes: Shapes) -> tuple[int, ...]:
    shape = shapes.get(node.name) if isinstance(node, Node) else None
    return shape.sizes if isinstance(shape, TensorShape) else ()


def _batched(node: Node, shapes: Shapes) -> Iterator[At]:
    """Batch dimensions of the operands of a product of activations."""
    if node.target is aten.einsum.default:
        yield from _batched_letters(node)
    elif node.target in _PRODUCTS:
        bound = arguments(node)
        operands = [bound[name] for name in _PRODUCTS[node.target]]  # type: ignore[index]
        if all(len(_sizes(operand, shapes)) > 2 for operand in operands):
            yield from ((operand, frozenset(range(len(_sizes(operand, shapes)) - 2))) for operand in operands)


def _batched_letters(node: Node) -> Iterator[At]:
    """Letters that every operand and the result of an einsum share."""
    bound = arguments(node)
    left, _, right = bound["equation"].replace(" ", "").partition("->")
    specs = left.split(",")
    if len(specs) > 1 and "." not in left and right:
        shared = set(right).intersection(*specs)
        for spec, operand in zip(specs, bound["tensors"], strict=True):
            yield operand, frozenset(dim for dim, letter in enumerate(spec) if letter in shared)


def _through_reshape(node: Node, dims: frozenset[int], shapes: Shapes) -> tuple[frozenset[int], At]:
    """Which of `dims` a reshape split from something wider, and where the others come from.

    A run that is all in `dims` is followed on: batch and heads that were one dimension for a while.
    """
    source = arguments(node)["self"]
    before, after = _sizes(source, shapes), _sizes(node, shapes)
    split: set[int] = set()
    followed: set[int] = set()
    for run_before, run_after in factor(before, after):
        wide = {dim for dim in run_after if after[dim] > 1}
        mine = dims & wide
        if mine == wide:
            followed |= set(run_before) if mine else set()
        else:
            split |= mine
    return frozenset(split), (source, frozenset(followed))


def _before(node: Node, dims: frozenset[int], shapes: Shapes) -> Iterator[At]:
    """The same dimensions in what the operator reads."""
    if node.target is operator.getitem:
        source, _ = node.args
        if isinstance(source, Node) and source.target in (_MOVES | _SAME_DIMS):
            yield from _before(source, dims, shapes)
        return
    rank = len(_sizes(node, shapes)) or None
    if node.target in _KEEP_BATCH:
        bound = arguments(node)
        yield bound["input"] if "input" in bound else bound["self"], dims & {0}
    elif node.target in _MOVES:
        source = arguments(node)["self"]
        places = _places(node, _sizes(source, shapes))
        yield source, frozenset(places[dim] for dim in dims if dim in places)
    elif node.target in _SAME_DIMS or torch.Tag.pointwise in getattr(node.target, "tags", ()):
        for source in node.all_input_nodes:
            sizes = _sizes(source, shapes)
            if not sizes:
                continue
            by = (rank or len(sizes)) - len(sizes)
            yield source, frozenset(dim - by for dim in dims if dim >= by and sizes[dim - by] > 1)


def _places(node: Node, sizes: tuple[int, ...]) -> dict[int, int]:
    """Dimension of the result -> of the source: the operator is run on a tensor whose strides tell its dimensions."""
    bound = arguments(node)
    if any(isinstance(value, Node) for name, value in bound.items() if name != "self"):
        return {}
    probe = torch.empty_strided(sizes, [dim + 1 for dim in range(len(sizes))], device="meta")
    result = node.target(**{**bound, "self": probe})  # type: ignore[operator]
    first = result[0] if isinstance(result, (tuple, list)) else result
    return {dim: stride - 1 for dim, stride in enumerate(first.stride())}
