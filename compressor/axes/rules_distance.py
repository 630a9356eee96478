"""Axis rules of products with more than a weight on one side: inner and tensor products, bilinear layers, distances.

It must never hold rules of convolutions, linear layers or matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from compressor.axes.labels import Value, flat_along
from compressor.axes.meeting import ids_along, join, unify
from compressor.axes.rules_contract import contract
from compressor.axes.table import Arguments, Context, rule
from compressor.program import families
from compressor.program.families import operator_name


@rule(families.OTHER_MATMUL)
def inner(ctx: Context, node: Node, a: Arguments) -> Value:
    """The last dimensions are united and summed, the others pass; `linalg_matmul` as `matmul`, a number as a factor."""
    x, y = a["self"], a["other"]
    if min(x.rank, y.rank) == 0:
        return unify(ctx, [x, y], any)
    batch = range(max(x.rank, y.rank))
    left, right = [f"m{i}" for i in batch[: x.rank - 1]], [f"n{i}" for i in batch[: y.rank - 1]]
    if operator_name(node.target) == "linalg_matmul" and min(x.rank, y.rank) > 1:
        shared = [f"b{i}" for i in reversed(range(max(x.rank, y.rank) - 2))]
        specs = [[*shared[len(shared) - x.rank + 2 :], "m", "k"], [*shared[len(shared) - y.rank + 2 :], "k", "n"]]
        return contract(ctx, specs, [x, y], [*shared, "m", "n"])
    if operator_name(node.target) == "linalg_matmul" and y.rank > 1:
        return contract(ctx, [["k"], [*right[:-1], "k", "n"]], [x, y], [*right[:-1], "n"])
    return contract(ctx, [[*left, "k"], [*right, "k"]], [x, y], [*left, *right])


@rule(families.OUTER)
def outer(ctx: Context, node: Node, a: Arguments) -> Value:
    """Both vectors pass."""
    return contract(ctx, [["m"], ["n"]], [a["self"], a["vec2"]], ["m", "n"])


@rule(families.ADDMV)
def addmv(ctx: Context, node: Node, a: Arguments) -> Value:
    """The product of a matrix and a vector, united with the vector that is added."""
    product = contract(ctx, [["m", "k"], ["k"]], [a["mat"], a["vec"]], ["m"])
    return unify(ctx, [product, a["self"]], all)


@rule(families.ADDBMM)
def addbmm(ctx: Context, node: Node, a: Arguments) -> Value:
    """Batch and x.K = y.K are summed, x.M and y.N pass, united with the matrix that is added."""
    product = contract(ctx, [["b", "m", "k"], ["b", "k", "n"]], [a["batch1"], a["batch2"]], ["m", "n"])
    return unify(ctx, [product, a["self"]], all)


@rule(families.TENSORDOT)
def tensordot(ctx: Context, node: Node, a: Arguments) -> Value:
    """The dimensions that are named are united and summed, the others pass."""
    x, y = a["self"], a["other"]
    left, right = [f"m{d}" for d in range(x.rank)], [f"n{d}" for d in range(y.rank)]
    for i, (p, q) in enumerate(zip(a["dims_self"], a["dims_other"], strict=True)):
        left[x.normal_dim(p)] = right[y.normal_dim(q)] = f"k{i}"
    out = [name for name in (*left, *right) if not name.startswith("k")]
    return contract(ctx, [left, right], [x, y], out)


@rule(families.BILINEAR)
def bilinear(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.F = w.O = b.O, x.F = w.I, y.F = w.J; other dimensions of x and y united."""
    x, y, weight, bias = a["input1"], a["input2"], a["weight"], a["bias"]
    names = [f"d{i}" for i in range(x.rank - 1)]
    out = contract(ctx, [[*names, "i"], [*names, "j"], ["o", "i", "j"]], [x, y, weight], [*names, "o"])
    if bias is None:
        return out
    join(ctx, ids_along(ctx, bias, 0), ids_along(ctx, weight, 0))
    return Value(out.sizes, tuple(label.with_zero(label.zero and label.dims == (x.rank - 1,)) for label in out.labels))


@rule(families.DISTANCE)
def distance(ctx: Context, node: Node, a: Arguments) -> Value:
    """x.M = y.M is dropped where both are 0, points and batch pass."""
    x, y = a["x1"], a["x2"]
    batch = [f"b{i}" for i in reversed(range(max(x.rank, y.rank) - 2))]
    x, y = _without_sums(ctx, [x, y], [x.rank - 1, y.rank - 1])
    specs = [[*batch[len(batch) - x.rank + 2 :], "p", "k"], [*batch[len(batch) - y.rank + 2 :], "r", "k"]]
    out = contract(ctx, specs, [x, y], [*batch, "p", "r"])
    return Value(out.sizes, tuple(label.with_zero(False) for label in out.labels))


@rule(families.SIMILARITY)
def similarity(ctx: Context, node: Node, a: Arguments) -> Value:
    """Along the dimension x = y is dropped where both are 0; the others are united."""
    x: Value = a["x1"]
    y: Value = a["x2"]
    rank = max(x.rank, y.rank)
    dim: int = a["dim"] % rank
    places = [dim - (rank - value.rank) for value in (x, y)]
    if min(places) < 0:
        ctx.pin_values([x, y], "is compared along a dimension that one of both is stretched over")
        return Value(ctx.out.sizes)
    x, y = _without_sums(ctx, [x, y], places)
    sizes = [max(value.sizes[d - rank + value.rank] for value in (x, y) if d >= rank - value.rank) for d in range(rank)]
    sizes[dim] = 1
    united = unify(ctx, [x, y], any, sizes=tuple(sizes))
    moved = tuple(
        type(label)(tuple(d - (d > dim) for d in label.dims), label.ids, label.zero) for label in united.labels
    )
    return Value(ctx.out.sizes, moved)


def _without_sums(ctx: Context, operands: Sequence[Value], dims: Sequence[int]) -> list[Value]:
    """The operands with nothing along the dimension that a distance sums over: united where a removed position is 0 in
    all of them, so that its difference and its square are, and pinned otherwise."""
    labels = [label for value, dim in zip(operands, dims, strict=True) for label in value.along(dim)]
    if (
        not all(label.zero and len(label.dims) == 1 for label in labels)
        or len({value.sizes[dim] for value, dim in zip(operands, dims, strict=True)}) > 1
    ):
        ctx.pin(labels, "is compared where a removed position would not be 0")
    else:
        found = [ids_along(ctx, value, dim) for value, dim in zip(operands, dims, strict=True)]
        for ids in found[1:]:
            join(ctx, found[0], ids)
    return [
        Value(flat_along(value.sizes, [dim]), value.apart_from([dim]))
        for value, dim in zip(operands, dims, strict=True)
    ]
