"""Importers of operators that only move data: reshape, transpose, slice, gather, concat, pad …

It must never hold arithmetic on values. Sizes that depend on the batch stay symbolic; a shape that fixes the batch is
opened when the whole network is imported with an open one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.budget import check_argument
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.opening import opened_batch
from compressor.formats.onnx_import.table import Op, imports, imports_sizes, integers
from compressor.formats.onnx_import.values import (
    Const,
    Number,
    Size,
    Sizes,
    Traced,
    Value,
    combined,
    entries_of,
    of_entries,
)
from compressor.typed_torch import from_numpy

aten = torch.ops.aten
_python: Any = operator
_numpy: Any = np
"""Their stubs say nothing about floordiv, and do not take the mode of a padding as a text."""

_BEYOND = (2**31 - 1, 2**63 - 1)
"""What exporters write for the end of any dimension."""

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@imports("Reshape")
def reshape(ctx: Emitter, op: Op) -> Value:
    """`reshape`; 0 keeps a size, one size may be open, and the one that depends on the batch is."""
    x = ctx.tensor_of(op.needed(0))
    wanted = ctx.numbers(op.needed(1))
    if not op.get("allowzero", 0):
        wanted = [ctx.size(x, i) if isinstance(n, int) and n == 0 else n for i, n in enumerate(wanted)]
    return reshaped(ctx, x, wanted)


def reshaped(ctx: Emitter, x: Traced | Const, wanted: Sequence[Number]) -> Value:
    """x in another shape of the same elements; -1 stands for the size that follows from the others."""
    if isinstance(x, Const):
        if x.rank == 2 and list(x.tensor.shape) == list(wanted):
            return x
        return ctx.call(aten.reshape.default, x, list(wanted))
    opened = opened_batch(ctx, x, wanted)
    sizes = [_resolved(opened, x, trial) for trial in range(len(x.metas))]
    new: list[Any] = []
    for position, entry in enumerate(opened):
        values = {trial[position] for trial in sizes}
        new.append(values.pop() if len(values) == 1 else entry)
    computed = [i for i, entry in enumerate(new) if isinstance(entry, Size)]
    if len(computed) == 1 and -1 not in [entry for entry in new if isinstance(entry, int)]:
        new[computed[0]] = -1
    if all(tuple(trial) == tuple(meta.shape) for trial, meta in zip(sizes, x.metas, strict=True)):
        return x
    return ctx.call(aten.reshape.default, x, new)


def _resolved(wanted: Sequence[Number], x: Traced, trial: int) -> list[int]:
    """The shape at one trial. Raises: ModelError if it does not hold the elements."""
    sizes = [entry.values[trial] if isinstance(entry, Size) else int(entry) for entry in wanted]
    numel, known = x.metas[trial].numel(), math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if known == 0 or numel % known or sizes.count(-1) > 1:
            raise ModelError(f"cannot reshape {list(x.metas[trial].shape)} into {sizes}")
        sizes[sizes.index(-1)] = numel // known
    if math.prod(sizes) != numel:
        raise ModelError(f"cannot reshape {list(x.metas[trial].shape)} into {sizes}")
    return sizes


@imports("Flatten")
def flatten(ctx: Emitter, op: Op) -> Value:
    """`flatten` from dimension 1 on; `reshape` to a matrix for another axis."""
    x, axis = ctx.tensor_of(op.needed(0)), op.get("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    if axis == 1 and x.rank > 1:
        return x if x.rank == 2 else ctx.call(aten.flatten.using_ints, x, 1, -1)
    product: Any = 1
    for dim in range(axis):
        product = ctx.size(x, dim) * product
    return reshaped(ctx, x, [product, -1])


@imports("Transpose")
def transpose(ctx: Emitter, op: Op) -> Value:
    """`permute`; a constant matrix is exchanged while importing."""
    x = ctx.tensor_of(op.needed(0))
    order = list(op.get("perm", range(x.rank)[::-1]))
    if order == list(range(x.rank)):
        return x
    if isinstance(x, Const) and x.rank == 2:
        return ctx.transposed(x)
    return ctx.call(aten.permute.default, x, order)


@imports("Squeeze")
def squeeze(ctx: Emitter, op: Op) -> Value:
    """`squeeze` of the named dimensions, of all that have size 1 when none is named."""
    x = ctx.tensor_of(op.needed(0))
    axes = op.axes()
    if axes is None and any(1 in x.at(d) and set(x.at(d)) != {1} for d in range(x.rank)):
        raise ModelError("squeezes every dimension of size 1, which the batch is for one sample")
    dims = sorted(a % x.rank for a in axes) if axes is not None else [d for d in range(x.rank) if set(x.at(d)) == {1}]
    wrong = [dim for dim in dims if set(x.at(dim)) != {1}]
    if wrong:
        raise ModelError(f"takes dimension {wrong[0]} away, which is not of size 1")
    return x if not dims else ctx.call(aten.squeeze.dims, x, dims)


@imports("Unsqueeze")
def unsqueeze(ctx: Emitter, op: Op) -> Value:
    """`unsqueeze`, one dimension after the other."""
    x, axes = ctx.tensor_of(op.needed(0)), op.axes() or []
    rank = x.rank + len(axes)
    for dim in sorted(axis % rank for axis in axes):
        x = ctx.call(aten.unsqueeze.default, x, dim)
    return x


@imports("Concat")
def concatenate(ctx: Emitter, op: Op) -> Value:
    """`cat`; a constant beside samples is repeated for every one when the batch was opened."""
    parts = [ctx.tensor_of(value) for value in op.inputs if value is not None]
    rank = parts[0].rank
    dim = op.get("axis", 1) % max(rank, 1)
    if len(parts) == 1:
        return parts[0]
    if ctx.fixed_batch is not None and dim:
        parts = [_repeated(ctx, part, parts) for part in parts]
    return ctx.call(aten.cat.default, parts, dim)


def _repeated(ctx: Emitter, part: Traced | Const, others: Sequence[Traced | Const]) -> Traced | Const:
    """A part that holds the file's batch along dimension 0, stretched to the batch of the others."""
    samples = next((other for other in others if isinstance(other, Traced) and len(set(other.at(0))) > 1), None)
    if samples is None or set(part.at(0)) != {1} or ctx.fixed_batch != 1:
        return part
    return ctx.call(aten.expand.default, part, [ctx.size(samples, 0), *[-1] * (part.rank - 1)])


@imports("Split")
def split(ctx: Emitter, op: Op) -> tuple[Value, ...]:
    """`split_with_sizes`; into equal parts when no sizes are given, the last one smaller."""
    x = ctx.tensor_of(op.needed(0))
    dim, sizes = op.get("axis", 0) % x.rank, op.axes(1, "split")
    if sizes is None:
        sizes = _equal_parts(ctx.size(x, dim), op)
    return ctx.call(aten.split_with_sizes.default, x, sizes, dim)


def _equal_parts(size: Number, op: Op) -> list[Number]:
    """Parts of one size, of which only those of a given number may leave the last one smaller."""
    if "num_outputs" not in op.attributes:
        return [combined(_python.floordiv, size, len(op.outputs))] * len(op.outputs)
    n = op.get("num_outputs")
    check_argument(n)
    step = combined(_python.floordiv, size + (n - 1), n)
    return [*[step] * (n - 1), size - step * (n - 1)]


@imports("Slice")
def cut(ctx: Emitter, op: Op) -> Value:
    """`slice` along one dimension after the other; a full step back is a `flip`."""
    x = ctx.tensor_of(op.needed(0))
    for dim, start, end, step in _cuts(ctx, op, x.rank):
        x = cut_dim(ctx, x, dim, start, end, step)
    return x


def _cuts(ctx: Emitter, op: Op, rank: int) -> list[tuple[int, Number, Number, int]]:
    if op.opset < 10:
        starts, ends = list(op.get("starts")), list(op.get("ends"))
        axes, steps = op.get("axes"), None
    else:
        starts, ends = ctx.numbers(op.needed(1)), ctx.numbers(op.needed(2))
        axes, steps = (None if op.given(i) is None else integers(op.needed(i)) for i in (3, 4))
    axes = list(range(len(starts))) if axes is None else [axis % rank for axis in axes]
    return list(zip(axes, starts, ends, steps or [1] * len(axes), strict=True))


def cut_dim(ctx: Emitter, x: Traced | Const, dim: int, start: Number, end: Number, step: int) -> Traced | Const:
    """`x` from `start` to `end` along one dimension, as Slice cuts it."""
    if step < 1:
        return _backwards(ctx, x, dim, start, end, step)
    if step == 1 and isinstance(start, int) and isinstance(end, int) and start == 0:
        sizes = x.at(dim)
        if all(end >= size for size in sizes):
            return x
    return ctx.call(aten.slice.Tensor, x, dim, start, end, step)


def _backwards(ctx: Emitter, x: Traced | Const, dim: int, start: Number, end: Number, step: int) -> Traced | Const:
    if isinstance(start, Size) or isinstance(end, Size):
        raise ModelError("runs backwards between positions that depend on the batch")
    if start in (-1, *_BEYOND) and end < -_BEYOND[0] // 2:
        flipped = ctx.call(aten.flip.default, x, [dim])
        return flipped if step == -1 else ctx.call(aten.slice.Tensor, flipped, dim, 0, _BEYOND[1], -step)
    size = x.static(dim)
    ctx.budget.take_elements(size)
    first = min(start, size - 1) if start >= 0 else max(start + size, -1)
    last = end if end >= 0 else max(end + size, -1) if end >= -size else -1
    positions = list(range(first, last, step))
    if positions == list(range(size))[::-1]:
        return ctx.call(aten.flip.default, x, [dim])
    name = "" if ctx.op is None else f"{ctx.op.outputs[0]}.positions"
    return ctx.call(aten.index_select.default, x, dim, Const(torch.tensor(positions, dtype=torch.int64), name))


@imports("Expand")
def expand(ctx: Emitter, op: Op) -> Value:
    """`expand`; sizes that the input has already stay as they are."""
    x, wanted = ctx.tensor_of(op.needed(0)), ctx.numbers(op.needed(1))
    by = len(wanted) - x.rank
    given: list[Number] = [1] * max(-by, 0) + wanted
    sizes: list[Number] = []
    for position, entry in enumerate(given):
        dim = position - max(by, 0)
        keeps = dim >= 0 and (_is(entry, 1) or set(x.at(dim)) != {1})
        sizes.append(-1 if keeps else entry)
    if all(isinstance(size, int) and size == -1 for size in sizes):
        return x
    return ctx.call(aten.expand.default, x, sizes)


def _is(entry: Number, number: int) -> bool:
    return isinstance(entry, int) and entry == number


@imports("Tile")
def tile(ctx: Emitter, op: Op) -> Value:
    """`repeat`."""
    x, times = ctx.tensor_of(op.needed(0)), ctx.numbers(op.needed(1))
    return x if all(_is(n, 1) for n in times) else ctx.call(aten.repeat.default, x, times)


@imports("Pad")
def pad(ctx: Emitter, op: Op) -> Value:
    """`pad`: constant, reflected, or with copies of the edge."""
    x, mode = ctx.tensor_of(op.needed(0)), op.get("mode", "constant")
    if mode not in _PAD_MODES:
        raise ModelError(f"pads by {mode}, which is unknown")
    amounts = list(op.get("pads")) if op.opset < 11 else integers(op.needed(1))
    value = op.get("value", 0.0) if op.opset < 11 else ctx.scalar(op.given(2), 0.0)
    axes = None if op.given(3) is None else integers(op.needed(3))
    axes = list(range(x.rank)) if axes is None else [axis % x.rank for axis in axes]
    n = len(axes)
    pairs = {axis: (amounts[i], amounts[n + i]) for i, axis in enumerate(axes)}
    first = min((axis for axis, pair in pairs.items() if any(pair)), default=x.rank)
    if first == x.rank:
        return x
    if mode != "constant":  # torch wants these for all spatial dimensions or none
        if x.rank not in (3, 4, 5) or first < 2 or mode == "wrap":
            return _padded_by_positions(ctx, op, x, pairs, mode)
        first = 2
    new = [n for dim in range(x.rank - 1, first - 1, -1) for n in pairs.get(dim, (0, 0))]
    if mode == "constant":
        return ctx.call(aten.pad.default, x, new, "constant", value)
    return ctx.call(aten.pad.default, x, new, _PAD_MODES[mode])


def _padded_by_positions(
    ctx: Emitter, op: Op, x: Traced | Const, pairs: Mapping[int, tuple[int, int]], mode: str
) -> Value:
    """Any dimensions padded with what they hold themselves, by looking up where each position comes from."""
    by = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode]
    for dim, (before, after) in pairs.items():
        if before or after:
            ctx.budget.take_elements(x.static(dim) + abs(before) + abs(after))
            positions: np.ndarray = _numpy.pad(np.arange(x.static(dim)), (max(before, 0), max(after, 0)), mode=by)
            positions = positions[max(-before, 0) : len(positions) - max(-after, 0)]
            index = Const(from_numpy(positions.astype(np.int64)), f"{op.outputs[0]}.positions{dim}")
            x = ctx.call(aten.index_select.default, x, dim, index)
    return x


_ON_TENSORS: Mapping[str, Callable[[Emitter, Op], Value]] = {"Reshape": reshape, "Expand": expand, "Slice": cut}


@imports_sizes("Concat", "Squeeze", "Unsqueeze", "Reshape", "Slice", "Expand", "Flatten", "Transpose")
def size_move(ctx: Emitter, op: Op) -> Value:
    """The same move on the entries; where the sizes are only the shape to reach, on the tensor."""
    x = op.needed(0)
    if not isinstance(x, Sizes) and op.kind in _ON_TENSORS:
        return _ON_TENSORS[op.kind](ctx, op)
    entries = entries_of(x)
    if op.kind == "Concat":
        parts = [entries_of(value) for value in op.inputs if value is not None]
        entries = np.concatenate(parts, axis=op.get("axis", 0))
    elif op.kind == "Squeeze":
        axes = op.axes()
        entries = entries.squeeze(None if axes is None else tuple(axes))
    elif op.kind == "Unsqueeze":
        entries = np.expand_dims(entries, tuple(op.axes() or ()))
    elif op.kind == "Slice":
        for dim, start, end, step in _cuts(ctx, op, entries.ndim):
            entries = entries[(slice(None),) * dim + (slice(start, end, step),)]
    elif op.kind == "Reshape":
        entries = entries.reshape(integers(op.needed(1)))
    elif op.kind == "Transpose":
        entries = entries.transpose(op.get("perm"))
    elif entries.ndim > 1 or op.kind == "Expand":
        raise ModelError("spreads sizes that depend on the batch")
    return of_entries(entries, op.outputs[0], x.dtype)
