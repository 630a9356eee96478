"""Along which part of a dimension that a view splits its positions are told apart; it must never hold labels or decide
what is removed.

A head is a dimension that a product of two activations runs over in parallel: a batch dimension of a matrix product
or of an attention. Followed backwards through operators that only move data or work element by element, such a
dimension ends at the view that split it from the embedding. Other splits (a channel shuffle) are never reached. In the
same way the channels of a convolution end at the view that made maps of a linear layer's features: space cannot be cut.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from compressor.axes.labels import factor
from compressor.narrowing import is_row
from compressor.program import Program, TensorShape, arguments, families
from compressor.program.shapes import Shapes

At: TypeAlias = tuple[Node, frozenset[int]]
"""Dimensions of a node's value."""

_MOVES = families.TRANSPOSE | families.SELECT | families.UNBIND
_SAME_DIMS = (
    families.SLICE | families.NARROW | families.SPLIT | families.REPEAT_INTERLEAVE | families.FLIP | families.SOFTMAX
    | families.FEATURE_NORMS | families.EXPAND | families.REPEAT | families.COPY | families.DROPOUT | families.CAST
    | families.CAT
)  # fmt: skip
_OF_CHANNELS = (
    families.CONVOLUTIONS | families.TRANSPOSED_CONVOLUTIONS | families.CHANNEL_NORMS | families.GROUP_NORM
    | families.PIXEL_SHUFFLE
)  # fmt: skip
_KEEP_BATCH = families.CONVOLUTIONS | families.POOLS
"""Heads may lie in the batch of a convolution that all of them share."""


def find_head_splits(program: Program) -> dict[str, frozenset[int]]:
    """Dimensions that are heads, by the name of the view that made them."""
    return _ends(program, [at for node in program.module.graph.nodes for at in _batched(node, program.shapes)])


def find_channel_splits(program: Program) -> dict[str, frozenset[int]]:
    """Dimensions that some convolution, norm or shuffle takes for channels, by the name of the view that made them."""
    return _ends(program, [at for node in program.module.graph.nodes for at in _channels(node, program.shapes)])


def _channels(node: Node, shapes: Shapes) -> Iterator[At]:
    if node.target not in _OF_CHANNELS:
        return
    bound = arguments(node)
    weight = bound.get("weight")
    if isinstance(weight, Node) and weight.op == "call_function" and len(_sizes(weight, shapes)) > 2:
        yield from ((weight, frozenset({dim})) for dim in (0, 1))
    source = bound["input"] if "input" in bound else bound["self"]
    rank = len(_sizes(source, shapes))
    dim = rank - 3 if node.target in families.PIXEL_SHUFFLE else 1
    if rank > 2:
        yield source, frozenset({dim})


def _ends(program: Program, waiting: list[At]) -> dict[str, frozenset[int]]:
    """Where these dimensions, followed backwards, end: the dimensions of the views that split them from something."""
    found: dict[str, frozenset[int]] = {}
    seen: set[At] = set()
    while waiting:
        node, dims = waiting.pop()
        dims = frozenset(dim for dim in dims if _sizes(node, program.shapes)[dim] > 1)
        if not dims or node.op != "call_function" or (node, dims) in seen:
            continue
        seen.add((node, dims))
        if node.target in families.VIEWS:
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
    if node.target in families.EINSUM:
        yield from _batched_letters(node)
    elif names := families.operands_of(node.target):
        bound = arguments(node)
        operands = [bound[name] for name in names]
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
        if wide <= dims:
            followed |= set(run_before) if mine else set()
        else:
            split |= mine
    return frozenset(split), (source, frozenset(followed))


def _before(node: Node, dims: frozenset[int], shapes: Shapes) -> Iterator[At]:
    """The same dimensions in what the operator reads."""
    if node.target is operator.getitem:
        source, _ = node.args
        if isinstance(source, Node) and (source.target in _MOVES or source.target in _SAME_DIMS):
            yield from _before(source, dims, shapes)
        return
    rank = len(_sizes(node, shapes)) or None
    if node.target in _KEEP_BATCH:
        bound = arguments(node)
        yield bound["input"] if "input" in bound else bound["self"], dims & {0}
    elif node.target in families.WINDOWS:
        bound = arguments(node)
        yield bound["input"] if "input" in bound else bound["self"], dims
    elif node.target in families.REDUCTIONS:
        yield _before_reduction(node, dims, shapes)
    elif node.target in _MOVES:
        source = arguments(node)["self"]
        places = _places(node, _sizes(source, shapes))
        yield source, frozenset(places[dim] for dim in dims if dim in places)
    elif node.target in _SAME_DIMS or families.works_by_element(node.target):
        for source in node.all_input_nodes:
            sizes = _sizes(source, shapes)
            if not sizes:
                continue
            by = (rank or len(sizes)) - len(sizes)
            yield source, frozenset(dim - by for dim in dims if dim >= by and sizes[dim - by] > 1)


def _before_reduction(node: Node, dims: frozenset[int], shapes: Shapes) -> At:
    bound = arguments(node)
    source = bound["self"]
    rank, given = len(_sizes(source, shapes)), bound.get("dim")
    if given is None or given == []:
        return source, frozenset()
    gone: set[int] = {dim % rank for dim in (given if is_row(given) else [given])} if rank else set()
    if bound.get("keepdim"):
        return source, dims - gone
    left = [dim for dim in range(rank) if dim not in gone]
    return source, frozenset(left[dim] for dim in dims if dim < len(left))


def _places(node: Node, sizes: tuple[int, ...]) -> dict[int, int]:
    """Dimension of the result -> of the source: the operator is run on a tensor whose strides tell its dimensions."""
    bound = arguments(node)
    if any(isinstance(value, Node) for name, value in bound.items() if name != "self"):
        return {}
    probe = torch.empty_strided(sizes, [dim + 1 for dim in range(len(sizes))], device="meta")
    call: Any = node.target
    result = call(**{**bound, "self": probe})
    first: Tensor = result[0] if is_row(result) else result
    return {dim: stride - 1 for dim, stride in enumerate(first.stride())}
