"""Importers of operators that make values out of shapes or out of nothing; it must never hold moves of data."""

from __future__ import annotations

import numpy as np
import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.table import Op, imports
from compressor.formats.onnx_import.values import Const, Size, Sizes, Value, of_entries

aten = torch.ops.aten


@imports("Shape")
def shape(ctx: Emitter, op: Op) -> Value:
    """The sizes: numbers where they are fixed, `sym_size` where they depend on the batch."""
    x = op.needed(0)
    if isinstance(x, Sizes):
        return of_entries(list(x.entries.shape), op.outputs[0])
    part = slice(op.get("start", 0), op.get("end"))
    entries = np.empty(len(range(x.rank)[part]), dtype=object)
    entries[:] = [ctx.size(x, dim) for dim in range(x.rank)[part]]
    return of_entries(entries, op.outputs[0])


@imports("Size")
def size(ctx: Emitter, op: Op) -> Value:
    """The product of all sizes."""
    x, product = ctx.tensor_of(op.needed(0)), 1
    for entry in ctx.sizes(x):
        product = entry * product
    return of_entries(product, op.outputs[0])


@imports("Constant")
def constant(ctx: Emitter, op: Op) -> Value:
    """The value itself; how it is used decides whether it is a parameter."""
    for name, value in op.attributes.items():
        if name == "value":
            return Const(value, "")
        if name in ("value_float", "value_floats"):
            return Const(torch.tensor(value, dtype=torch.float32), "")
        if name in ("value_int", "value_ints"):
            return Const(torch.tensor(value, dtype=torch.int64), "")
    raise ModelError("holds a constant that is no plain tensor")


@imports("ConstantOfShape")
def filled(ctx: Emitter, op: Op) -> Value:
    """`full`."""
    value = op.get("value")
    fill = torch.zeros(1) if value is None else value
    number = fill.reshape(()).item()
    return ctx.call(aten.full.default, ctx.numbers(op.needed(0)), number, dtype=fill.dtype)


@imports("Range")
def steps(ctx: Emitter, op: Op) -> Value:
    """`arange`."""
    dtype = op.needed(0).dtype
    start, limit, step = (_one(ctx, op.needed(i)) for i in range(3))
    return ctx.call(aten.arange.start_step, start, limit, step, dtype=dtype)


def _one(ctx: Emitter, value: Value) -> int | float | Size:
    if isinstance(value, Const):
        return ctx.scalar(value)
    (number,) = ctx.numbers(value)
    return number


@imports("EyeLike")
def eye(ctx: Emitter, op: Op) -> Value:
    """`eye` of the input's sizes, on the main diagonal."""
    x = ctx.tensor_of(op.needed(0))
    if op.get("k", 0) or "dtype" in op.attributes:
        raise ModelError("asks for another diagonal or element type")
    return ctx.call(aten.eye.m, ctx.size(x, 0), ctx.size(x, 1), dtype=x.dtype)
