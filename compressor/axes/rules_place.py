"""Axis rules of operators that find the place of a value by another tensor: indices, scattering, unpooling, sampling.

It must never hold rules of operators that move data in the same way for every input.
"""

from __future__ import annotations

from dataclasses import replace

from torch.fx import Node

from compressor.axes.labels import Label, Value, flat_along
from compressor.axes.meeting import ids_along, join, unify
from compressor.axes.table import Arguments, Context, rule
from compressor.program import families

_CHOSEN = "positions are chosen by another tensor"
_SHORTER = "the indices reach a part of this dimension only"


@rule(families.INDEX)
def index(ctx: Context, node: Node, a: Arguments) -> Value:
    """Dimensions indexed by another tensor are pinned, or are what that was chosen among; the others pass where their
    place is unambiguous."""
    x, indices = a["self"], a["indices"]
    used = [d for d, value in enumerate(indices) if value is not None]
    if not used:
        return x
    if len(used) == 1:
        _look_up(ctx, x, used[0], indices[used[0]], _CHOSEN)
    else:
        ctx.pin_values(list(indices), "used as indices")
        ctx.pin((label for label in x.labels if set(label.dims) & set(used)), _CHOSEN)
    rest = x.apart_from(used)
    if used != list(range(used[0], used[0] + len(used))):
        ctx.pin(rest, "indexed at several places")
        return Value(ctx.out.sizes)
    by = len(ctx.out.sizes) - x.rank  # the result has the indices' own dimensions in place of those that were indexed
    moved = (replace(label, dims=tuple(d + by if d > used[0] else d for d in label.dims)) for label in rest)
    return Value(ctx.out.sizes, tuple(moved))


def _look_up(ctx: Context, x: Value, dim: int, index: Value, reason: str) -> None:
    """x.dim = what the index's numbers are positions among; pinned where that is not known."""
    if index.places is None:
        ctx.pin(x.along(dim), reason)
    else:
        join(ctx, ids_along(ctx, x, dim), index.places, reason)
    ctx.pin(index.labels, "used as indices")


@rule(families.GATHER)
def gather(ctx: Context, node: Node, a: Arguments) -> Value:
    """The dimension is pinned, or is what the index was chosen among; elsewhere out = self = index, which may be one
    value that is stretched."""
    x, places = a["self"], a["index"] if "index" in a else a["indices"]
    if a.get("dim") is None:
        ctx.pin_values([x, places], _CHOSEN)
        return Value(ctx.out.sizes)
    dim = x.normal_dim(a["dim"])
    stretches = "index" not in a  # `take_along_dim` stretches a size of 1, `gather` takes the first position there
    return _beside(ctx, dim, [x, places], ctx.out.sizes, n_values=1, stretches=stretches)


@rule(families.SCATTER)
def scatter(ctx: Context, node: Node, a: Arguments) -> Value:
    """The dimension is pinned, or is what the index was chosen among, and passes; elsewhere out = self = index =
    source."""
    x, places = a["self"], a["index"]
    dim = x.normal_dim(a["dim"])
    values = [x, *(a[name] for name in ("src", "source") if isinstance(a.get(name), Value))]
    if "source" in a:  # one index for all of the other dimensions
        ctx.pin_values(places, "used as indices")
        return _beside(ctx, dim, values, ctx.out.sizes, n_values=len(values))
    if a.get("value"):  # put over a removed position too
        values[0] = Value(x.sizes, tuple(label.with_zero(False) for label in x.labels))
    found = _beside(ctx, dim, [*values, places], ctx.out.sizes, n_values=len(values))
    if places.places is None:
        return found
    zero = all(label.zero for label in values[0].along(dim))
    return replace(found, labels=(*found.labels, Label((dim,), places.places, zero)))


@rule(families.ONE_HOT)
def one_hot(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.last = what the index was chosen among: 0 where none is; other dimensions pass."""
    x, last = a["self"], len(ctx.out.sizes) - 1
    labels = tuple(label.with_zero(False) for label in x.labels)
    own = () if x.places is None else (Label((last,), x.places),)
    if a["num_classes"] < 0:
        ctx.pin_values(x, "as many positions as the largest index says")
    return Value(ctx.out.sizes, (*labels, *own))


def _beside(
    ctx: Context, dim: int, operands: list[Value], sizes: tuple[int, ...], *, n_values: int, stretches: bool = False
) -> Value:
    """Labels apart from `dim`, united, 0 where the first `n_values` operands are; pinned where lengths differ."""
    uneven = {dim}
    for d in range(len(sizes)):
        lengths = {operand.sizes[d] for operand in operands}
        if d != dim and len(lengths - {1} if stretches else lengths) > 1:
            uneven.add(d)
    aside: list[Value] = []
    places = operands[-1].places  # the index is last
    if places is not None:
        join(ctx, ids_along(ctx, operands[0], dim), places, _CHOSEN)
    for operand in operands:
        for d in uneven:
            if d != dim or places is None:
                ctx.pin(operand.along(d), _CHOSEN if d == dim else _SHORTER)
        taken = flat_along(operand.sizes, uneven)
        aside.append(Value(taken, operand.apart_from(uneven)))
    one = flat_along(sizes, uneven)
    return Value(sizes, unify(ctx, aside, lambda zeros: all(list(zeros)[:n_values]), sizes=one).labels)


@rule(families.UNPOOL)
def unpool(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.C = self.C = indices.C; space is pinned."""
    x, places = a["self"], a["indices"]
    space = range(x.rank - families.spatial_rank(node.target), x.rank)
    aside: list[Value] = []
    for value in (x, places):
        ctx.pin((label for label in value.labels if set(label.dims) & set(space)), _CHOSEN)
        sizes = flat_along(value.sizes, space)
        aside.append(Value(sizes, value.apart_from(space)))
    one = flat_along(ctx.out.sizes, space)
    return Value(ctx.out.sizes, unify(ctx, aside, lambda zeros: next(iter(zeros), False), sizes=one).labels)


@rule(families.SAMPLE)
def sample(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.C = input.C; space is pinned, and so is the grid, which is read as coordinates."""
    x = a["input"]
    ctx.pin(a["grid"].labels, "used as coordinates")
    space = range(2, x.rank)
    ctx.pin((label for label in x.labels if set(label.dims) & {0, *space}), _CHOSEN)
    return Value(ctx.out.sizes, x.apart_from([0, *space]))
