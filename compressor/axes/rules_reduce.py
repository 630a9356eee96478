"""Axis rules of reductions, poolings, normalisations over a dimension and other operators that mix positions.

It must never hold rules of operators with weights to contract. What is summed stays exact when a removed position
is 0; what is averaged or compared does not, and pins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.fx import Node

from compressor.axes.ids import Ids
from compressor.axes.labels import Label, Value, Walked, flat_along
from compressor.axes.meeting import ids_along, unify
from compressor.axes.rules_move import fresh_label
from compressor.axes.rules_norm import pass_statistics
from compressor.axes.table import Arguments, Context, rule, values_in
from compressor.narrowing import is_row
from compressor.program import arguments, families

_SUMS = ("sum", "linalg_vector_norm", "norm", "count_nonzero", "frobenius_norm")
_KEEPS_ZERO = (*_SUMS, "mean", "amax", "amin", "max", "min", "cumsum", "std", "var", "logcumsumexp")


@rule(families.REDUCTIONS)
def reduction(ctx: Context, node: Node, a: Arguments) -> Walked:
    """Labels apart from the reduced dimensions pass; along them a sum of zeros is dropped, anything else pins."""
    x = a["self"]
    name = families.operator_name(node.target)
    dims = _dims(x, a.get("dim"))
    kept = _over(ctx, x, dims, exact=name in _SUMS and _is_l2_or_sum(a), what=name)
    outs = ctx.out if is_row(ctx.out) else (ctx.out,)
    values = tuple(
        Value(out.sizes, tuple(_renumber(x, label, dims, out.sizes, name in _KEEPS_ZERO) for label in kept))
        for out in outs
    )
    return values if is_row(ctx.out) else values[0]


def _is_l2_or_sum(a: Arguments) -> bool:
    order = a.get("ord", a.get("p", 2))
    return isinstance(order, (int, float)) and order > 0


def _dims(x: Value, dim: Any) -> tuple[int, ...]:
    if dim is None or dim == []:
        return tuple(range(x.rank))
    return tuple(x.normal_dim(d) for d in (dim if is_row(dim) else [dim]))


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
    gone: set[int] = set() if len(sizes) == x.rank else set(dims)
    moved = tuple(d - sum(1 for r in gone if r < d) for d in label.dims)
    return Label(moved, label.ids, label.zero and keeps_zero)


@rule(families.WINDOWS)
def window(ctx: Context, node: Node, a: Arguments) -> Walked:
    """Batch and channels pass; the dimensions that a window slides along are pinned."""
    x: Value = a["self"] if "self" in a else a["input"]
    spatial = range(x.rank - families.spatial_rank(node.target), x.rank)
    ctx.pin((label for label in x.labels if set(label.dims) & set(spatial)), "a window slides along this dimension")
    labels = x.apart_from(spatial)
    if is_row(ctx.out):
        return tuple(Value(out.sizes, labels) for out in ctx.out)
    return Value(ctx.out.sizes, labels)


@rule(families.SCANS, families.SORT)
def softmax(ctx: Context, node: Node, a: Arguments) -> Walked:
    """The dimension is pinned, but a softmax passes it where what is removed is minus infinity; the others pass."""
    x = a["self"]
    dim = x.normal_dim(a["dim"])
    name = families.operator_name(node.target).removeprefix("_")
    labels = tuple(label.with_zero(False) for label in x.apart_from([dim]))
    ids = _left_out(ctx, x, dim) if node.target in families.SOFTMAX else None
    if ids is not None:
        return Value(ctx.out.sizes, (*labels, Label((dim,), ids)))
    ctx.pin(x.along(dim), f"{name} over this dimension")
    if is_row(ctx.out):
        return tuple(Value(out.sizes, labels) for out in ctx.out)
    return Value(ctx.out.sizes, labels)


@rule(families.TOPK)
def largest(ctx: Context, node: Node, a: Arguments) -> Walked:
    """The dimension is pinned, but where what is removed is minus infinity it is never taken; the others pass."""
    x = a["self"]
    dim = x.normal_dim(a["dim"])
    ids = _left_out(ctx, x, dim) if a["largest"] else None
    if ids is None:
        return softmax(ctx, node, a)
    ctx.choices.append((ids, a["k"]))
    labels = tuple(label.with_zero(False) for label in x.apart_from([dim]))
    values, places = ctx.out
    return Value(values.sizes, labels), Value(places.sizes, labels, places=ids)


def _left_out(ctx: Context, x: Value, dim: int) -> Ids | None:
    """The ids along a dimension whose removed positions hold minus infinity; None for any other."""
    along = x.along(dim)
    return ids_along(ctx, x, dim) if along and all(label.absent and label.dims == (dim,) for label in along) else None


@rule(families.DIFFERENCE)
def difference(ctx: Context, node: Node, a: Arguments) -> Value:
    """The dimension is pinned, the others pass, united with what is put in front and behind."""
    x = a["self"]
    dim = x.normal_dim(a["dim"])
    parts = [x, *(a[name] for name in ("prepend", "append") if a.get(name) is not None)]
    for part in parts:
        ctx.pin(part.along(dim), "differences are taken along this dimension")
    aside = [Value(flat_along(part.sizes, [dim]), part.apart_from([dim])) for part in parts]
    return Value(ctx.out.sizes, unify(ctx, aside, all, sizes=flat_along(ctx.out.sizes, [dim])).labels)


@rule(families.FILLED, families.UNFILLED)
def filled(ctx: Context, node: Node, a: Arguments) -> Value:
    """All elements are equal, so every dimension of a known size gets fresh ids: any of it may go."""
    zero = "zeros" in families.operator_name(node.target) or a.get("fill_value") == 0
    given = arguments(node)["size"]  # the node's own: a size that is computed (the batch) is a node there
    sized = [dim for dim, size in enumerate(given) if isinstance(size, int) and size > 1]
    return Value(ctx.out.sizes, tuple(fresh_label(ctx, dim, zero) for dim in sized))


@rule(families.NUMBERS, families.TRIANGLE)
def constant(ctx: Context, node: Node, a: Arguments) -> Value:
    """Nothing of it may go: its elements differ by place."""
    ctx.pin_values(values_in(a), "shapes a constant")
    return Value(ctx.out.sizes)
