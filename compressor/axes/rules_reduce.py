"""Axis rules of reductions, poolings, normalisations over a dimension and other operators that mix positions.

It must never hold rules of operators with weights to contract. What is summed stays exact when a removed position
is 0; what is averaged or compared does not, and pins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Node

from compressor.axes.labels import Label, Value, Walked
from compressor.axes.rules_move import fresh_label
from compressor.axes.rules_norm import pass_statistics
from compressor.axes.table import Arguments, Context, rule, values_in
from compressor.program import arguments

aten = torch.ops.aten

_SUMS = ("sum", "linalg_vector_norm", "norm", "count_nonzero", "frobenius_norm")
_KEEPS_ZERO = (*_SUMS, "mean", "amax", "amin", "max", "min", "cumsum", "std", "var", "logcumsumexp")


@rule(
    aten.mean.dim, aten.mean.default, aten.sum.dim_IntList, aten.sum.default, aten.amax.default, aten.amin.default,
    aten.max.dim, aten.min.dim, aten.max.default, aten.min.default, aten.var.correction, aten.var.dim,
    aten.std.correction, aten.std.dim, aten.var_mean.correction, aten.linalg_vector_norm.default,
    aten.norm.ScalarOpt_dim, aten.prod.dim_int,
    aten.logsumexp.default, aten.argmax.default, aten.argmin.default, aten.any.dim, aten.all.dim, aten.median.dim,
)  # fmt: skip
def reduction(ctx: Context, node: Node, a: Arguments) -> Walked:
    """Labels apart from the reduced dimensions pass; along them a sum of zeros is dropped, anything else pins."""
    x = a["self"]
    name = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
    dims = _dims(x, a.get("dim"))
    kept = _over(ctx, x, dims, exact=name in _SUMS and _is_l2_or_sum(a), what=name)
    outs = ctx.out if isinstance(ctx.out, tuple) else (ctx.out,)
    values = tuple(
        Value(out.sizes, tuple(_renumber(x, label, dims, out.sizes, name in _KEEPS_ZERO) for label in kept))
        for out in outs
    )
    return values if isinstance(ctx.out, tuple) else values[0]


def _is_l2_or_sum(a: Arguments) -> bool:
    order = a.get("ord", a.get("p", 2))
    return isinstance(order, (int, float)) and order > 0


def _dims(x: Value, dim: Any) -> tuple[int, ...]:
    if dim is None or dim == []:
        return tuple(range(x.rank))
    return tuple(x.normal_dim(d) for d in (dim if isinstance(dim, (list, tuple)) else [dim]))


def _over(ctx: Context, x: Value, dims: Iterable[int], *, exact: bool, what: str) -> tuple[Label, ...]:
    """Handle the labels that vary along reduced dimensions; the others are returned."""
    reduced = set(dims)
    for label in x.labels:
        crossed = reduced & set(label.dims)
        if crossed and what == "mean":
            pass_statistics(ctx, [label], reduced, f"passes a mean over {x.sizes[min(crossed)]} positions")
        elif crossed and not (exact and label.zero and crossed == set(label.dims)):
            ctx.pin(label, f"passes {_ARTICLE.get(what, what)} over {x.sizes[min(crossed)]} positions")
    return x.apart_from(reduced)


_ARTICLE = {
    "mean": "a mean",
    "var": "a variance",
    "std": "a deviation",
    "amax": "a maximum",
    "max": "a maximum",
    "sum": "a sum",
}


def _renumber(x: Value, label: Label, dims: tuple[int, ...], sizes: tuple[int, ...], keeps_zero: bool) -> Label:
    gone = set() if len(sizes) == x.rank else set(dims)
    moved = tuple(d - sum(1 for r in gone if r < d) for d in label.dims)
    return Label(moved, label.ids, label.zero and keeps_zero)


@rule(
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default, aten.avg_pool1d.default,
    aten.avg_pool2d.default, aten.avg_pool3d.default, aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default, aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default, aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec,
    aten.upsample_nearest1d.vec, aten.upsample_bicubic2d.vec, aten.upsample_nearest2d.default,
    aten.upsample_bilinear2d.default, aten.max_pool2d_with_indices.default,
    aten.reflection_pad2d.default, aten.replication_pad2d.default, aten.upsample_linear1d.vec,
    aten.upsample_trilinear3d.vec, aten.upsample_nearest3d.vec,
)  # fmt: skip
def window(ctx: Context, node: Node, a: Arguments) -> Walked:
    """Batch and channels pass; the dimensions that a window slides along are pinned."""
    x: Value = a["self"] if "self" in a else a["input"]
    spatial = range(x.rank - _spatial_dims(node), x.rank)
    ctx.pin((label for label in x.labels if set(label.dims) & set(spatial)), "a window slides along this dimension")
    labels = x.apart_from(spatial)
    if isinstance(ctx.out, tuple):
        return tuple(Value(out.sizes, labels) for out in ctx.out)
    return Value(ctx.out.sizes, labels)


def _spatial_dims(node: Node) -> int:
    name = node.target._schema.name  # type: ignore[union-attr]
    return next((n for n in (1, 2, 3) if f"{n}d" in name), 2)


@rule(
    aten.softmax.int,
    aten.log_softmax.int,
    aten._softmax.default,
    aten.cumsum.default,
    aten.sort.default,
    aten.sort.stable,
    aten.topk.default,
)
def softmax(ctx: Context, node: Node, a: Arguments) -> Walked:
    """The dimension is pinned, the others pass."""
    x = a["self"]
    dim = x.normal_dim(a["dim"])
    name = node.target._schema.name.removeprefix("aten::").removeprefix("_")  # type: ignore[union-attr]
    ctx.pin(x.along(dim), f"{name} over this dimension")
    labels = tuple(label.with_zero(False) for label in x.apart_from([dim]))
    if isinstance(ctx.out, tuple):
        return tuple(Value(out.sizes, labels) for out in ctx.out)
    return Value(ctx.out.sizes, labels)


@rule(
    aten.full.default, aten.zeros.default, aten.ones.default, aten.empty.memory_format, aten.new_full.default,
    aten.new_zeros.default, aten.new_ones.default, aten.new_empty.default,
)  # fmt: skip
def filled(ctx: Context, node: Node, a: Arguments) -> Value:
    """All elements are equal, so every dimension of a known size gets fresh ids: any of it may go."""
    zero = "zeros" in node.target._schema.name or a.get("fill_value") == 0  # type: ignore[union-attr]
    given = arguments(node)["size"]  # the node's own: a size that is computed (the batch) is a node there
    sized = [dim for dim, size in enumerate(given) if isinstance(size, int) and size > 1]
    return Value(ctx.out.sizes, tuple(fresh_label(ctx, dim, zero) for dim in sized))


@rule(
    aten.scalar_tensor.default, aten.arange.default, aten.arange.start, aten.arange.start_step, aten.linspace.default,
    aten.eye.default, aten.eye.m, aten.tril.default, aten.triu.default,
)  # fmt: skip
def constant(ctx: Context, node: Node, a: Arguments) -> Value:
    """Nothing of it may go: its elements differ by place."""
    ctx.pin_values(values_in(a), "shapes a constant")
    return Value(ctx.out.sizes)
