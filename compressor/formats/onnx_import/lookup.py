"""Importers of lookups: gather and scatter, by positions that are fixed or computed; it must never hold other moves.

ONNX counts negative positions from the end, which most of torch's lookups do not.
"""

from __future__ import annotations

import operator

import numpy as np
import torch
from torch.fx import Node

from compressor.errors import ModelError
from compressor.formats.onnx_import.budget import check_argument
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.move import cut_dim
from compressor.formats.onnx_import.table import Op, imports, imports_sizes, integers
from compressor.formats.onnx_import.values import Const, Number, Sizes, Traced, Value, entries_of, of_entries

aten = torch.ops.aten


@imports("Gather")
def gather(ctx: Emitter, op: Op) -> Value:
    """`select` for one position, `slice` for a run, `embedding` of a table, otherwise `index_select` or `index`.

    Positions that count from the end are supported but for ids that come from outside.
    """
    x, at = ctx.tensor_of(op.needed(0)), ctx.tensor_of(op.needed(1))
    dim = op.get("axis", 0) % max(x.rank, 1)
    if not isinstance(at, Const):
        if isinstance(x, Const) and x.rank == 2 and dim == 0 and _is_trained(x.tensor):
            ids = at if _are_ids(at) else from_front(ctx, at, x.static(0))
            return ctx.call(aten.embedding.default, ctx.attached(x, "weight"), ids)
        return ctx.call(aten.index.Tensor, x, [*[None] * dim, at])
    positions, size = at.tensor.reshape(-1), max(x.at(dim))
    if bool(((positions >= size) | (positions < -size)).any()):
        raise ModelError(f"looks up position {int(positions.abs().max())} of {size}")
    if at.rank == 0:
        return ctx.call(aten.select.int, x, dim, int(at.tensor))
    if bool((positions < 0).any()) and len(set(x.at(dim))) > 1:
        # torch's index is the one lookup that counts from the end of whatever size there is
        return ctx.call(aten.index.Tensor, x, [*[None] * dim, at])
    positions = torch.where(positions < 0, positions + size, positions)
    found = _selected(ctx, x, dim, positions, at.name)
    if at.rank == 1:
        return found
    if isinstance(found, Const):
        shape = [*found.tensor.shape[:dim], *at.tensor.shape, *found.tensor.shape[dim + 1 :]]
        return ctx.call(aten.reshape.default, found, shape)
    return ctx.call(aten.unflatten.int, found, dim, list(at.tensor.shape))


def _is_trained(table: torch.Tensor) -> bool:
    """Whether its rows may be an embedding: a row of -inf masks what reads it, no training gave it."""
    return table.is_floating_point() and (not bool(table.isinf().any()) or bool(table.isnan().any()))


def _selected(ctx: Emitter, x: Traced | Const, dim: int, positions: torch.Tensor, name: str) -> Traced | Const:
    is_run = isinstance(x, Traced) and len(positions) > 0 and bool((positions.diff() == 1).all())
    if is_run and len(set(x.at(dim))) == 1:  # a slice of a smaller batch would be short, where rows are missing
        return cut_dim(ctx, x, dim, int(positions[0]), int(positions[-1]) + 1, 1)
    return ctx.call(aten.index_select.default, x, dim, Const(positions, name))


_REDUCTIONS = {"mul": "prod", "max": "amax", "min": "amin"}


@imports("GatherElements", "ScatterElements")
def elements(ctx: Emitter, op: Op) -> Value:
    """`gather`, or `scatter` of a source, `scatter_add` or `scatter_reduce` of what falls on one place."""
    x, dim = ctx.tensor_of(op.needed(0)), op.get("axis", 0)
    at = from_front(ctx, ctx.tensor_of(op.needed(1)), ctx.size(x, dim))
    if op.kind == "GatherElements":
        return ctx.call(aten.gather.default, x, dim, at)
    reduction = op.get("reduction", "none")
    if reduction == "none":
        return ctx.call(aten.scatter.src, x, dim, at, op.needed(2))
    if reduction == "add":
        return ctx.call(aten.scatter_add.default, x, dim, at, op.needed(2))
    if reduction not in _REDUCTIONS:
        raise ModelError(f"scatters with the reduction {reduction[:20]}, which is unknown")
    return ctx.call(aten.scatter_reduce.two, x, dim, at, op.needed(2), _REDUCTIONS[reduction])


_FROM_FRONT = frozenset({aten.argmax.default, aten.argmin.default, aten.sort.stable})


def from_front(ctx: Emitter, at: Traced | Const, size: Number) -> Traced | Const:
    """Positions that count from the front: ONNX counts negative ones from the end, which torch's lookups do not."""
    is_fixed = isinstance(at, Const)
    if bool((at.tensor >= 0).all()) if is_fixed else _maker(at.node).target in _FROM_FRONT:
        return at
    from_end = ctx.call(aten.add.Tensor, at, size)
    return ctx.call(aten.where.self, ctx.call(aten.lt.Scalar, at, 0), from_end, at)


def _maker(node: Node) -> Node:
    """The node that made the numbers, where others only took a part of them."""
    while node.target in (operator.getitem, aten.slice.Tensor, aten.index_select.default):
        node = node.all_input_nodes[0]
    return node


def _are_ids(value: Traced) -> bool:
    """Whether they come from outside as whole numbers."""
    node = value.node
    while node.target is aten.to.dtype:
        node = node.all_input_nodes[0]
    return node.op == "placeholder" and not node.meta["val"].dtype.is_floating_point


@imports("GatherND", "ScatterND")
def tuples(ctx: Emitter, op: Op) -> Value:
    """`index` or `index_put` by the tuples along the last dimension of the positions."""
    x, at = op.needed(0), ctx.tensor_of(op.needed(1))
    if op.get("batch_dims", 0) or op.get("reduction", "none") not in ("none", "add"):
        raise ModelError("has batch dimensions or a reduction, which is not supported")
    n = at.static(at.rank - 1)
    check_argument(n)
    positions = [ctx.call(aten.select.int, at, at.rank - 1, i) for i in range(n)]
    if op.kind == "GatherND":
        return ctx.call(aten.index.Tensor, x, positions)
    return ctx.call(aten.index_put.default, x, positions, op.needed(2), op.get("reduction", "none") == "add")


@imports_sizes("Gather")
def size_gather(ctx: Emitter, op: Op) -> Value:
    """The entries at fixed positions."""
    if isinstance(op.needed(1), Sizes):
        return gather(ctx, op)
    at = np.array(integers(op.needed(1)), dtype=np.int64).reshape(entries_of(op.needed(1)).shape)
    x = op.needed(0)
    return of_entries(np.take(entries_of(x), at, axis=op.get("axis", 0)), op.outputs[0], x.dtype)
