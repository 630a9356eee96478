"""Axis rules of operators that multiply and sum: convolution, linear, matmul, einsum, attention, embedding.

It must never hold rules of operators that only move data. Notation of the rows: `w.O` the label along the weight's
output axis, `=` united, `new` a label of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch.fx import Node

from compressor.axes.ids import Ids
from compressor.axes.labels import Label, Value
from compressor.axes.meeting import ids_along, join, no_partner, unify
from compressor.axes.rules_move import SHARED, shares_evenly
from compressor.axes.table import Arguments, Context, rule
from compressor.program import families
from compressor.program.letters import einsum_letters


@rule(families.CONVOLUTIONS)
def convolution(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.C = w.O, x.C = w.I per group, b.O = w.O; depthwise: x.C = w.O."""
    x, weight = a["input"], a["weight"]
    out_ids, in_ids = ids_along(ctx, weight, 0), ids_along(ctx, weight, 1)
    _pin_window(ctx, x, weight)
    _join_groups(ctx, _channels(ctx, x), in_ids, out_ids, a["groups"], weight.sizes[1])
    _require_zero(ctx, x, weight, 1)
    _join_bias(ctx, a["bias"], out_ids)
    return _channel_value(ctx, x, out_ids, _is_zero(weight, 0))


@rule(families.TRANSPOSED_CONVOLUTIONS)
def transposed_convolution(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.C = w.O, x.C = w.I (weight is (I, O/groups, K)), b.O = w.O; depthwise: out.C = x.C."""
    x, weight, groups = a["input"], a["weight"], a["groups"]
    in_ids, out_ids = ids_along(ctx, weight, 0), ids_along(ctx, weight, 1)
    _pin_window(ctx, x, weight)
    channels = _channels(ctx, x)
    join(ctx, channels, in_ids)
    _require_zero(ctx, x, weight, 0)
    if families.is_depthwise(node.target, weight.sizes, groups):
        return _transposed_depthwise(ctx, x, weight, in_ids, a["bias"])
    if groups > 1:
        if in_ids is not None:
            tie_groups(ctx, in_ids, groups)
        bias = None if a["bias"] is None else ids_along(ctx, a["bias"], 0)
        if out_ids is None:
            if bias is not None:
                ctx.ids.pin(bias, "a single filter in every group", ctx.node)
            return _channel_value(ctx, x, None, False)
        if a["bias"] is not None:
            join(ctx, None if bias is None else bias.reshape(groups, -1), out_ids[None])
        repeated = np.broadcast_to(out_ids, (groups, len(out_ids))).reshape(-1)
        return _channel_value(ctx, x, repeated, _is_zero(weight, 1))
    _join_bias(ctx, a["bias"], out_ids)
    return _channel_value(ctx, x, out_ids, _is_zero(weight, 1))


def _transposed_depthwise(ctx: Context, x: Value, weight: Value, in_ids: Ids | None, bias: Value | None) -> Value:
    """Channel and filters of a group are one unit, and `groups` shrinks with it."""
    n_filters = weight.sizes[1]
    ctx.pin(weight.along(1), "every channel has filters of its own")
    out_ids = None if in_ids is None else np.repeat(in_ids, n_filters)
    _join_bias(ctx, bias, out_ids)
    return _channel_value(ctx, x, out_ids, _is_zero(weight, 0))


def _is_zero(value: Value, dim: int) -> bool:
    return all(label.zero for label in value.along(dim))


def _require_zero(ctx: Context, x: Value, weight: Value, weight_dim: int) -> None:
    """A sum over channels may drop a removed one only where its input or its weight is 0 in the masked model."""
    dim = _channel_dim(ctx, x)
    if not _is_zero(x, dim) and not _is_zero(weight, weight_dim):
        ctx.pin(weight.along(weight_dim), "is summed over where a removed position would not be 0")


def _channels(ctx: Context, x: Value) -> Ids | None:
    return ids_along(ctx, x, _channel_dim(ctx, x))


def _channel_dim(ctx: Context, x: Value) -> int:
    """1, or 0 for an input without batch."""
    return 1 if x.rank == len(ctx.out.sizes) and x.rank in (3, 4, 5) else 0


def _pin_window(ctx: Context, x: Value, weight: Value) -> None:
    for dim in range(2, weight.rank):
        ctx.pin(weight.along(dim), "kernel window")
    for dim in range(2, x.rank):
        ctx.pin(x.along(dim), "a convolution slides along this dimension")


def _join_groups(
    ctx: Context, channels: Ids | None, in_ids: Ids | None, out_ids: Ids | None, groups: int, width: int
) -> None:
    if groups == 1:
        join(ctx, channels, in_ids)
    elif width == 1:  # depthwise: filter and channel are one unit and `groups` shrinks with it
        if channels is not None and out_ids is not None:
            ctx.unite(channels[:, None], out_ids.reshape(groups, -1))
        else:
            join(ctx, channels, out_ids)
    else:  # every group keeps the same offsets, so that all groups stay equally wide
        if channels is not None:
            join(ctx, channels.reshape(groups, width), None if in_ids is None else in_ids[None])
        else:
            join(ctx, None, in_ids)
        if out_ids is not None:
            tie_groups(ctx, out_ids, groups)


def tie_groups(ctx: Context, ids: Ids, groups: int) -> None:
    """Make equal offsets of all groups one unit."""
    per_group = ids.reshape(groups, -1)
    ctx.unite(per_group[:1], per_group)


def _join_bias(ctx: Context, bias: Value | None, out_ids: Ids | None) -> None:
    if bias is not None:
        join(ctx, ids_along(ctx, bias, 0), out_ids)


def _channel_value(ctx: Context, x: Value, out_ids: Ids | None, zero: bool) -> Value:
    dim = _channel_dim(ctx, x)
    kept = tuple(label.with_zero(False) for label in x.labels if dim > 0 and label.dims == (0,))
    made = () if out_ids is None else ctx.label_of(_at(out_ids, dim, len(ctx.out.sizes)), zero, "a single channel")
    return Value(ctx.out.sizes, kept + made)


def _at(ids: Ids, dim: int, rank: int) -> Ids:
    return ids.reshape([-1 if d == dim else 1 for d in range(rank)])


@rule(families.LINEAR)
def linear(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.F = w.O, x.F = w.I, b.O = w.O; other dimensions of x pass."""
    x, weight, bias = a["input"], a["weight"], a["bias"]
    names = [f"d{i}" for i in range(x.rank - 1)]
    out = contract(ctx, [[*names, "in"], ["out", "in"]], [x, weight], [*names, "out"])
    if bias is None:
        return out
    _join_bias(ctx, bias, ids_along(ctx, weight, 0))
    last = len(out.sizes) - 1
    return Value(out.sizes, tuple(label.with_zero(label.zero and label.dims == (last,)) for label in out.labels))


@rule(families.PRODUCTS)
def matmul(ctx: Context, node: Node, a: Arguments) -> Value:
    """x.K = y.K, batch dimensions united, x.M and y.N pass."""
    return contract(ctx, *_matmul_names(*_operands(node, a)))


@rule(families.ADDED_PRODUCTS)
def addmm(ctx: Context, node: Node, a: Arguments) -> Value:
    """The matmul row, with the added matrix united along the dimensions it shares."""
    product = contract(ctx, *_matmul_names(*_operands(node, a)))
    return unify(ctx, [product, a["self"]], all)


def _operands(node: Node, a: Arguments) -> tuple[Value, Value]:
    x, y = (a[name] for name in families.operands_of(node.target))
    return x, y


def _matmul_names(x: Value, y: Value) -> tuple[list[list[str]], list[Value], list[str]]:
    x_names = ["k"] if x.rank == 1 else [*_batch_names(x.rank - 2), "m", "k"]
    y_names = ["k"] if y.rank == 1 else [*_batch_names(y.rank - 2), "k", "n"]
    batch = _batch_names(max(x.rank - 2, y.rank - 2, 0))
    out = [*batch, *(["m"] if x.rank > 1 else []), *(["n"] if y.rank > 1 else [])]
    return [x_names, y_names], [x, y], out


def _batch_names(n: int) -> list[str]:
    """Named from the right, because that is how batch dimensions broadcast."""
    return [f"b{i}" for i in reversed(range(n))]


@rule(families.EINSUM)
def einsum(ctx: Context, node: Node, a: Arguments) -> Value:
    """Letters (of an ellipsis too) that two operands share are united; those of the result pass; a repeat pins."""
    operands = list(a["tensors"])
    specs, out = einsum_letters(a["equation"], [operand.rank for operand in operands])
    if any(len(set(spec)) < len(spec) for spec in specs):
        ctx.pin_values(operands, f"einsum {a['equation']} takes a diagonal")
        return Value(ctx.out.sizes)
    return contract(ctx, specs, operands, out)


@rule(families.ATTENTION)
def attention(ctx: Context, node: Node, a: Arguments) -> Value:
    """q.E = k.E; softmax pins k.S; v.E passes; heads and batch united, a key's head with those of its queries."""
    query, key, value, mask = a["query"], a["key"], a["value"], a["attn_mask"]
    batch = _batch_names(query.rank - 2)
    if a.get("enable_gqa"):
        offsets = ctx.ids.new(max(query.sizes[-3] // key.sizes[-3], 1))
        key, value = (_repeated_heads(ctx, shared, query, offsets) for shared in (key, value))
    scores_sizes = (*query.sizes[:-1], key.sizes[-2])
    scores = contract(
        ctx, [[*batch, "l", "e"], [*batch, "s", "e"]], [query, key], [*batch, "l", "s"], sizes=scores_sizes
    )
    if mask is not None:
        scores = unify(ctx, [scores, mask], all, sizes=scores_sizes)
    ctx.pin(scores.along(len(scores_sizes) - 1), "softmax over this dimension")
    weights = Value(scores_sizes, tuple(x.with_zero(False) for x in scores.apart_from([len(scores_sizes) - 1])))
    return contract(ctx, [[*batch, "l", "s"], [*batch, "s", "v"]], [weights, value], [*batch, "l", "v"])


def _repeated_heads(ctx: Context, shared: Value, query: Value, offsets: Ids) -> Value:
    """Keys or values as grouped-query attention sees them: every head repeated for the queries that share it.

    Where queries go evenly from all groups (`shares_evenly`), the heads are pinned, and `offsets` stand for the queries
    of a group.
    """
    dim = shared.rank - 3
    times = query.sizes[dim] // shared.sizes[dim] if shared.sizes[dim] > 1 else 1
    sizes = tuple(size * times if d == dim else size for d, size in enumerate(shared.sizes))
    repeated: list[Label] = []
    for label in shared.labels:
        if label.dims == (dim,) and shares_evenly(ctx, label, times):
            ctx.pin(label, SHARED)
            repeated.append(Label((dim,), np.tile(offsets, shared.sizes[dim]), False))
        elif dim in label.dims:
            repeated.append(replace(label, ids=np.repeat(label.ids, times, axis=label.dims.index(dim))))
        else:
            repeated.append(label)
    return Value(sizes, tuple(repeated))


@rule(families.EMBEDDING)
def embedding(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.D = w.D; the vocabulary is pinned, or is what the index was chosen among."""
    weight, places = a["weight"], a["indices"].places
    if places is None:
        ctx.pin(weight.along(0), "rows are chosen by the input's integers")
    else:
        join(ctx, ids_along(ctx, weight, 0), places)
    ctx.pin(a["indices"].labels, "used as indices")
    width = ids_along(ctx, weight, 1)
    rank = len(ctx.out.sizes)
    return Value(ctx.out.sizes, () if width is None else ctx.label_of(_at(width, rank - 1, rank), True, "one feature"))


def contract(
    ctx: Context,
    specs: Sequence[Sequence[str]],
    operands: Sequence[Value],
    out: Sequence[str],
    sizes: tuple[int, ...] | None = None,
) -> Value:
    """Labels of a sum of products: dimensions of one name are united, those in `out` pass, the others are summed.

    A summed dimension is exact only where one factor of the removed positions is 0 in the masked model, which holds
    for every weight; otherwise its ids are pinned. An operand of full size without ids along a name pins the others.
    """
    shape: tuple[int, ...] = ctx.out.sizes if sizes is None else sizes
    labels: list[Label] = []
    for name in dict.fromkeys(name for spec in specs for name in spec):
        ids, zero = _named(ctx, name, specs, operands)
        if ids is None:
            continue
        if name in out:
            labels.extend(ctx.label_of(_at(ids, list(out).index(name), len(shape)), zero, "a single position"))
        elif not zero:
            ctx.ids.pin(ids, "is summed over where a removed position would not be 0", ctx.node)
    return Value(shape, tuple(labels))


def _named(
    ctx: Context, name: str, specs: Sequence[Sequence[str]], operands: Sequence[Value]
) -> tuple[Ids | None, bool]:
    """United ids of all operands along one name, and whether any factor is 0 there in the masked model."""
    found: list[tuple[Ids, bool]] = []
    bare: list[Value] = []
    for spec, operand in zip(specs, operands, strict=True):
        if name not in spec or operand.sizes[list(spec).index(name)] == 1:
            continue
        dim = list(spec).index(name)
        ids = ids_along(ctx, operand, dim)
        if ids is None:
            bare.append(operand)
        else:
            found.append((ids, any(label.zero for label in operand.along(dim))))
    if not found:
        return None, True
    for ids, _ in found[1:]:
        ctx.unite(found[0][0], ids)
    if bare:
        ctx.ids.pin(found[0][0], no_partner(*bare), ctx.node)
    return found[0][0], any(zero for _, zero in found)
