"""Importers of reductions, softmax and other operators along a dimension; it must never hold those of windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.table import Op, imports
from compressor.formats.onnx_import.values import Const, Value

aten = torch.ops.aten

_REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip


@imports(*_REDUCTIONS)
def reduction(ctx: Emitter, op: Op) -> Value:
    """`mean`, `sum`, `amax`, `amin`, `prod`, `linalg_vector_norm` or `logsumexp`, over all without `axes`."""
    x = ctx.tensor_of(op.needed(0))
    dims, keep = _dims(op, x.rank), bool(op.get("keepdims", 1))
    return x if dims is None else _reduced(ctx, op.kind, x, dims, keep)


def _dims(op: Op, rank: int) -> list[int] | None:
    """The dimensions; None where nothing is to be done."""
    axes = op.axes()
    if not axes:
        return None if op.get("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({axis % rank for axis in axes})


def _reduced(ctx: Emitter, kind: str, x: Value, dims: Sequence[int], keep: bool) -> Value:
    if kind == "ReduceMean":
        return ctx.call(aten.mean.dim, x, dims, keep)
    if kind in ("ReduceMax", "ReduceMin"):
        return ctx.call(aten.amax.default if kind == "ReduceMax" else aten.amin.default, x, dims, keep)
    if kind == "ReduceL2":
        return ctx.call(aten.linalg_vector_norm.default, x, 2, dims, keep)
    if kind == "ReduceLogSumExp":
        return ctx.call(aten.logsumexp.default, x, dims, keep)
    if kind == "ReduceProd":
        for dim in reversed(dims):
            x = ctx.call(aten.prod.dim_int, x, dim, keep)
        return x
    if kind == "ReduceL1":
        x = ctx.call(aten.abs.default, x)
    if kind == "ReduceSumSquare":
        x = ctx.call(aten.mul.Tensor, x, x)
    total = ctx.call(aten.sum.dim_IntList, x, dims, keep, dtype=x.dtype)
    return ctx.call(aten.log.default, total) if kind == "ReduceLogSum" else total


@imports("ArgMax", "ArgMin")
def extreme_position(ctx: Emitter, op: Op) -> Value:
    """`argmax` or `argmin`."""
    if op.get("select_last_index", 0):
        raise ModelError("asks for the last of equal positions, which torch does not give")
    target = aten.argmax.default if op.kind == "ArgMax" else aten.argmin.default
    return ctx.call(target, op.needed(0), op.get("axis", 0), bool(op.get("keepdims", 1)))


@imports("TopK")
def largest(ctx: Emitter, op: Op) -> tuple[Value, ...]:
    """A stable `sort`, its first entries kept: of equal values the first counts."""
    x, dim = ctx.tensor_of(op.needed(0)), op.get("axis", -1)
    k, is_largest = op.get("k") if op.opset < 10 else int(ctx.scalar(op.given(1))), bool(op.get("largest", 1))
    if not op.get("sorted", 1):
        raise ModelError(
            "gives its values in no defined order, so what follows is not defined; export it with sorted=1"
        )
    if k > max(x.at(dim)):
        raise ModelError(f"keeps {k} of {max(x.at(dim))} values")
    in_order = ctx.call(aten.sort.stable, x, stable=True, dim=dim, descending=is_largest)
    if len(set(x.at(dim))) == 1:
        return tuple(ctx.call(aten.slice.Tensor, part, dim, 0, k) for part in in_order)
    ctx.budget.take_elements(max(k, 0))
    first = Const(torch.arange(k), f"{op.outputs[0]}.first")  # a slice of fewer samples would be short
    return tuple(ctx.call(aten.index_select.default, part, dim, first) for part in in_order)


@imports("Softmax", "LogSoftmax")
def softmax(ctx: Emitter, op: Op) -> Value:
    """`softmax` or `log_softmax`; before opset 13 over all dimensions from `axis` on."""
    x = ctx.tensor_of(op.needed(0))
    target = aten.softmax.int if op.kind == "Softmax" else aten.log_softmax.int
    if op.opset >= 13:
        return ctx.call(target, x, op.get("axis", -1))
    axis = op.get("axis", 1) % x.rank
    if axis == x.rank - 1:
        return ctx.call(target, x, -1)
    over = [x.static(dim) for dim in range(axis, x.rank)]
    flat = ctx.call(aten.flatten.using_ints, x, axis, -1)
    return ctx.call(aten.unflatten.int, ctx.call(target, flat, -1), axis, over)


@imports("CumSum")
def running_sum(ctx: Emitter, op: Op) -> Value:
    """`cumsum`, between two `flip`s when reversed, less the value itself when exclusive."""
    x, dim = op.needed(0), int(ctx.scalar(op.given(1)))
    start = ctx.call(aten.flip.default, x, [dim]) if op.get("reverse", 0) else x
    total = ctx.call(aten.cumsum.default, start, dim, dtype=x.dtype)
    if op.get("exclusive", 0):
        total = ctx.call(aten.sub.Tensor, total, start)
    return ctx.call(aten.flip.default, total, [dim]) if op.get("reverse", 0) else total


@imports("Trilu")
def triangle(ctx: Emitter, op: Op) -> Value:
    """`triu` or `tril`."""
    diagonal = int(ctx.scalar(op.given(1), 0))
    return ctx.call(aten.triu.default if op.get("upper", 1) else aten.tril.default, op.needed(0), diagonal)
