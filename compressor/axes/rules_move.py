"""Axis rules of operators that only move data: the operator itself is run on the ids.

It must never hold index arithmetic of its own. Ids along dimensions that an operator does not touch stay at size 1,
so nothing is expanded that does not have to be.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from compressor.axes.ids import Ids
from compressor.axes.labels import Label, Value, Walked, flat_along, from_array, reshape_label
from compressor.axes.meeting import ids_along, join, unify
from compressor.axes.table import Arguments, Context, rule
from compressor.narrowing import is_row
from compressor.program import arguments, families
from compressor.typed_torch import from_numpy

_ONE_LEFT = "a single position is taken out of the dimension"


@rule(families.VIEWS)
def view(ctx: Context, node: Node, a: Arguments) -> Value:
    """Ids reshaped; a labelled dimension that is split keeps identity along one part, the others are tied to it."""
    x, labels = a["self"], list[Label]()
    for label in x.labels:
        ids = reshape_label(label, x.sizes, ctx.out.sizes)
        labels.extend(split_ties(ctx, label, ids))
    return Value(ctx.out.sizes, _one_per_dimensions(ctx, labels), x.uniform)


def _one_per_dimensions(ctx: Context, labels: Iterable[Label]) -> tuple[Label, ...]:
    """Labels that a view has merged (heads and their width) as one: united, but for those that may not go anyway.

    A pinned label beside a free one is dropped: nothing of it is ever removed, and a union would pin the other. So is
    one that a stretch made, once it is pinned: a key that several queries share stays as often repeated, unless more
    queries share it than there are keys (`shares_evenly`). Beside heads that stay whole, what is inside of them is
    pinned.
    """
    found: dict[tuple[int, ...], Label] = {}
    merged = list(labels)
    for label in merged:
        others = [other for other in merged if other.dims == label.dims and other is not label]
        real = [other for other in others if not ctx.is_stretched(other)]
        if ctx.is_stretched(label) and real:
            if all(shares_evenly(ctx, other, n_shared=len(np.unique(label.ids))) for other in real):
                ctx.pin(real, SHARED)
            else:
                ctx.pin(label, "repeats what is merged with it")
        elif not ctx.are_heads(label) and any(ctx.are_heads(other) for other in others):
            ctx.pin(label, "a position inside of attention heads")
    for label in merged:
        other = found.get(label.dims)
        if other is None or ctx.ids.all_pinned(other.ids):
            found[label.dims] = label if other is None or not ctx.ids.all_pinned(label.ids) else other
        elif not ctx.ids.all_pinned(label.ids):
            ctx.unite(other.ids, label.ids)
            found[label.dims] = other.with_zero(other.zero and label.zero)
    return tuple(found.values())


SHARED = "every group of queries shares one of its heads: queries go evenly from all groups"
"""Why heads of keys and values stay where single queries of a group are units."""


def shares_evenly(ctx: Context, keys: Label, n_shared: int) -> bool:
    """Whether to cut queries inside of groups, one of every group at a time, and not whole groups with their keys.

    Both cannot be: a query would belong to two units. There are as many units as queries in a group, or as groups; what
    is finer is taken. `keys` are the heads that `n_shared` queries share each.
    """
    return ctx.are_heads(keys) and n_shared > len(np.unique(keys.ids))


def split_ties(ctx: Context, before: Label, ids: Ids) -> tuple[Label, ...]:
    """One label along one dimension for each label that a view has spread over more.

    Every intermediate must stay a dense tensor: removing position k of one head means removing it of every head. Where
    the walk keeps heads, the label stays along the heads of an attention instead, and the positions inside are tied; so
    it does along what convolutions take for channels, because what is space then may not go.
    """
    made = from_array(ids, before.zero)
    if made is None:
        ctx.ids.pin(before.ids, _ONE_LEFT, ctx.node)
        return ()
    if len(made.dims) <= len(before.dims):
        return (made,)
    heads = [i for i, dim in enumerate(made.dims) if dim in ctx.head_splits.get(ctx.node, ())]
    channels = [i for i, dim in enumerate(made.dims) if dim in ctx.channel_splits.get(ctx.node, ())]
    if len(heads) == 2 and heads[1] == heads[0] + 1:
        heads = heads[:1]  # groups, and what of each is packed in it: queries, their key and their value go together
    kept = next((part[0] for part in (heads, channels) if len(part) == 1), len(made.dims) - 1)
    first = np.moveaxis(made.ids, kept, -1).reshape(-1, made.ids.shape[kept])
    ctx.unite(first[:1], first)
    if len(heads) == 1:
        ctx.heads.append(first[0])
    return (Label((made.dims[kept],), first[0], before.zero),)


@rule(families.TRANSPOSE, families.FLIP, families.ROTATE)
def rearrange(ctx: Context, node: Node, a: Arguments) -> Value:
    """The operator run on ids of size 1 where they do not vary."""
    return Value(ctx.out.sizes, _moved(ctx, node, a, a["self"], ()))


@rule(families.EXPAND, families.EXPAND_AS)
def expand(ctx: Context, node: Node, a: Arguments) -> Value:
    """Ids pass; a dimension of size 1 that is stretched gets fresh ids, or those of what it is stretched to."""
    x, rank = a["self"], len(ctx.out.sizes)
    by = rank - x.rank
    labels = [label.shifted(by) for label in x.labels]
    stretched = [dim for dim, size in enumerate((1,) * by + x.sizes) if size == 1 < ctx.out.sizes[dim]]
    if "other" in a:
        labels += [label.with_zero(False) for label in a["other"].labels if set(label.dims) <= set(stretched)]
    else:
        given = arguments(node)["size"]  # the node's own: a size that is computed (the batch) is a node there
        labels += [fresh_label(ctx, dim) for dim in stretched if _has_parts(given[dim])]
    return Value(ctx.out.sizes, tuple(labels), x.uniform)


def _has_parts(size: Any) -> bool:
    """Whether some of a size may go: of a number above 1, or of one times the batch (heads that lie along it)."""
    if isinstance(size, Node):
        return size.target is operator.mul and any(_has_parts(n) for n in size.args if isinstance(n, int))
    return isinstance(size, int) and size > 1


def fresh_label(ctx: Context, dim: int, zero: bool = False) -> Label:
    """Ids of its own for a dimension of the output along which all is equal: any of it may go."""
    ids = ctx.ids.new(ctx.out.sizes[dim])
    ctx.stretched.update(ids.tolist())
    return Label((dim,), ids, zero)


@rule(families.REPEAT)
def repeat(ctx: Context, node: Node, a: Arguments) -> Value:
    """Ids repeated along the dimensions where they vary; a dimension of size 1 that is repeated gets fresh ones."""
    x, given = a["self"], arguments(node)
    times = list(a["repeats"] if "repeats" in a else a["dims"])
    by = len(ctx.out.sizes) - x.rank
    times = [1] * (len(ctx.out.sizes) - len(times)) + times
    labels: list[Label] = []
    for label in x.labels:
        ids = label.shifted(by).at_rank(len(ctx.out.sizes))
        tiled = np.tile(ids, [n if ids.shape[d] > 1 else 1 for d, n in enumerate(times)])
        labels.extend(ctx.label_of(tiled, label.zero, _ONE_LEFT))
    own: list[Any] = given["repeats" if "repeats" in given else "dims"]  # a number that is computed is a node there
    own = [1] * (len(ctx.out.sizes) - len(own)) + list(own)
    sizes = (1,) * by + x.sizes
    labels += [fresh_label(ctx, d) for d, n in enumerate(own) if sizes[d] == 1 and isinstance(n, int) and n > 1]
    return Value(ctx.out.sizes, tuple(labels))


@rule(families.PARTS, families.REPEAT_INTERLEAVE)
def along_one(ctx: Context, node: Node, a: Arguments) -> Walked:
    """The operator run on ids along its dimension; elsewhere they pass, shifted if a dimension goes or comes."""
    x = a["self"]
    if a.get("step", 1) != 1:  # what is left of a strided dimension would not be strided any more
        ctx.pin(x.along(x.normal_dim(a["dim"])), "a step above 1 takes some positions and leaves out others")
        x = Value(x.sizes, x.apart_from([x.normal_dim(a["dim"])]))
    dims = [x.normal_dim(a[name]) for name in ("dim", "dimension", "dim1", "dim2") if a.get(name) is not None]
    if isinstance(ctx.out, tuple):
        return _parts(ctx, node, a, x, dims)
    return Value(ctx.out.sizes, _moved(ctx, node, a, x, dims), x.uniform)


@rule(families.INDEX_SELECT)
def select_positions(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.dim = index, x.dim pinned, other dimensions pass: removing a position shortens the index, not its source;
    what the index was chosen among goes from the source."""
    x, index = a["self"], a["index"]
    dim = x.normal_dim(a["dim"])
    if index.places is None:
        ctx.pin(x.along(dim), "positions are chosen by another tensor")
    else:
        join(ctx, ids_along(ctx, x, dim), index.places, "positions are chosen by another tensor")
    chosen = tuple(Label((dim,), label.ids, False) for label in index.labels)
    return Value(ctx.out.sizes, (*x.apart_from([dim]), *chosen))


def _parts(ctx: Context, node: Node, a: Arguments, x: Value, dims: Sequence[int]) -> tuple[Value, ...]:
    labels: list[list[Label]] = [[] for _ in ctx.out]
    for label in x.labels:
        if _untouched(x, label, dims, ctx.out[0].sizes):
            for part in labels:
                part.append(label)
            continue
        for part, ids in zip(labels, _run(node, a, x, label, dims), strict=True):
            part.extend(ctx.label_of(ids, label.zero, _ONE_LEFT))
    return tuple(Value(out.sizes, tuple(part)) for out, part in zip(ctx.out, labels, strict=True))


def _moved(ctx: Context, node: Node, a: Arguments, x: Value, dims: Sequence[int]) -> tuple[Label, ...]:
    labels: list[Label] = []
    for label in x.labels:
        if _untouched(x, label, dims, ctx.out.sizes):
            labels.append(label)
        else:
            labels.extend(ctx.label_of(_run(node, a, x, label, dims), label.zero, _ONE_LEFT))
    return tuple(labels)


def _untouched(x: Value, label: Label, dims: Sequence[int], sizes: tuple[int, ...]) -> bool:
    """Whether an operator along `dims` leaves the label as it is, even if nothing is left along `dims`."""
    return bool(dims) and not set(dims) & set(label.dims) and len(sizes) == x.rank


def _run(node: Node, a: Arguments, x: Value, label: Label, dims: Iterable[int]) -> Any:
    """The node's operator on ids that have their full size along `dims` and wherever the label varies."""
    ids = label.at_rank(x.rank)
    shape = [x.sizes[d] if d in dims else size for d, size in enumerate(ids.shape)]
    source = from_numpy(np.broadcast_to(ids, shape).copy())
    call: Any = node.target
    result = call(**{**a, "self": source})
    return [part.numpy() for part in result] if is_row(result) else result.numpy()


@rule(families.CAT, families.STACK)
def concatenate(ctx: Context, node: Node, a: Arguments) -> Value:
    """Ids concatenated along the dimension, united along the others."""
    parts: list[Value] = list(a["tensors"])
    rank = len(ctx.out.sizes)
    dim = a["dim"] % rank
    if node.target in families.STACK:
        parts = [_unsqueezed(part, dim) for part in parts]
    parts = [part for part in parts if part.rank == rank and part.sizes[dim]]
    labels: list[Label] = []
    if any(part.along(dim) for part in parts):
        pieces = [_along_or_pinned(ctx, part, dim) for part in parts]
        joined = np.concatenate([ids for ids, _ in pieces])
        shape = [-1 if d == dim else 1 for d in range(rank)]
        labels.extend(ctx.label_of(joined.reshape(shape), all(zero for _, zero in pieces), _ONE_LEFT))
    others = [Value(flat_along(part.sizes, [dim]), part.apart_from([dim])) for part in parts]
    rest = unify(ctx, others, all, sizes=flat_along(ctx.out.sizes, [dim]))
    return Value(ctx.out.sizes, (*labels, *rest.labels))


def _unsqueezed(value: Value, dim: int) -> Value:
    sizes = (*value.sizes[:dim], 1, *value.sizes[dim:])
    moved = tuple(Label(tuple(d + (d >= dim) for d in x.dims), x.ids, x.zero) for x in value.labels)
    return Value(sizes, moved)


def _along_or_pinned(ctx: Context, part: Value, dim: int) -> tuple[Ids, bool]:
    ids = ids_along(ctx, part, dim)
    if ids is None or len(part.along(dim)[0].dims) > 1:
        why = f": {part.why}" if part.why else ""
        reason = f"is concatenated with a value that has no units along this dimension{why}"
        return ctx.pinned_ids(part.sizes[dim], reason), True
    return ids, all(label.zero for label in part.along(dim))


@rule(families.PAD)
def pad(ctx: Context, node: Node, a: Arguments) -> Value:
    """Fresh ids on both sides of a labelled dimension; they are 0 when the padding is."""
    x, amounts = a["self"], list(a["pad"])
    constant = a.get("mode", "constant") == "constant"
    fill = a.get("value") or 0.0
    labels: list[Label] = []
    for label in x.labels:
        padded = [d for d in label.dims if any(amounts[2 * (x.rank - 1 - d) : 2 * (x.rank - 1 - d) + 2])]
        if padded and (not constant or len(label.dims) > 1):
            ctx.pin(label, "is padded with copies of itself" if not constant else "padded along several dimensions")
        elif padded:
            before, after = amounts[2 * (x.rank - 1 - padded[0]) :][:2]
            if before < 0 or after < 0:
                ctx.pin(label, "is cropped by a negative padding")
                continue
            ids = np.concatenate([ctx.ids.new(before), label.ids, ctx.ids.new(after)])
            labels.append(Label(label.dims, ids, label.zero and fill == 0))
        else:
            labels.append(label.with_zero(label.zero and (fill == 0 or not any(amounts))))
    return Value(ctx.out.sizes, tuple(labels))


@rule(families.PIXEL_SHUFFLE)
def shuffle(ctx: Context, node: Node, a: Arguments) -> Value:
    """Ids moved between channels and space, then tied so that every remaining channel is whole."""
    x, labels = a["self"], list[Label]()
    for label in x.labels:
        if label.dims != (x.rank - 3,):
            ctx.pin(label, "is mixed into channels")
            continue
        ids = _run(node, a, x, label, range(x.rank - 2, x.rank))
        labels.extend(_whole_channels(ctx, label, ids, x.rank - 3))
    return Value(ctx.out.sizes, tuple(labels))


@rule(families.CHANNEL_SHUFFLE)
def channel_shuffle(ctx: Context, node: Node, a: Arguments) -> Value:
    """Equal offsets of all groups are one unit, so that the groups stay equally wide; then the ids are shuffled."""
    x = a["self"]
    for label in x.along(1):
        if label.dims == (1,):
            groups = label.ids.reshape(a["groups"], -1)
            ctx.unite(groups[:1], groups)
        else:
            ctx.pin(label, "varies along several dimensions at once")
    return Value(ctx.out.sizes, _moved(ctx, node, a, x, (1,)))


@rule(families.TO_COLUMNS)
def to_columns(ctx: Context, node: Node, a: Arguments) -> Value:
    """Every channel becomes its window's positions, side by side; space is pinned."""
    x, window = a["self"], math.prod(a["kernel_size"])
    channel = x.rank - 3
    _pin_space(ctx, x)
    labels = [label.with_zero(False) for label in x.labels if label.dims == (0,) and channel > 0]
    ids = ids_along(ctx, x, channel)
    if ids is not None:
        shape = [-1 if d == channel else 1 for d in range(len(ctx.out.sizes))]
        zero = all(label.zero for label in x.along(channel))
        labels.extend(ctx.label_of(np.repeat(ids, window).reshape(shape), zero, _ONE_LEFT))
    return Value(ctx.out.sizes, tuple(labels))


@rule(families.FROM_COLUMNS)
def from_columns(ctx: Context, node: Node, a: Arguments) -> Value:
    """The positions of a channel's window are one unit; columns are pinned."""
    x, window = a["self"], math.prod(a["kernel_size"])
    channel = x.rank - 2
    ctx.pin(x.along(x.rank - 1), "columns are put back into space")
    labels = [label.with_zero(False) for label in x.labels if label.dims == (0,) and channel > 0]
    ids = ids_along(ctx, x, channel)
    if ids is not None:
        of_channel = ids.reshape(-1, window)
        ctx.unite(of_channel[:, :1], of_channel)
        shape = [-1 if d == channel else 1 for d in range(len(ctx.out.sizes))]
        zero = all(label.zero for label in x.along(channel))
        labels.extend(ctx.label_of(np.ascontiguousarray(of_channel[:, 0]).reshape(shape), zero, _ONE_LEFT))
    return Value(ctx.out.sizes, tuple(labels))


def _pin_space(ctx: Context, x: Value) -> None:
    for dim in range(x.rank - 2, x.rank):
        ctx.pin(x.along(dim), "a window slides along this dimension")


@rule(families.DISPLACE)
def displace(ctx: Context, node: Node, a: Arguments) -> Value:
    """Dimensions that are rolled or unfolded are pinned; the others pass unless their place changes."""
    x = a["self"]
    given = next((a[name] for name in ("dims", "dimension") if name in a), None)
    if given is None or given == []:
        ctx.pin(x.labels, "is rearranged over several dimensions")
        return Value(ctx.out.sizes)
    dims = [x.normal_dim(d) for d in (given if is_row(given) else [given])]
    ctx.pin((label for label in x.labels if set(label.dims) & set(dims)), "is rolled or unfolded")
    return Value(ctx.out.sizes, x.apart_from(dims))


def _whole_channels(ctx: Context, label: Label, ids: Ids, dim: int) -> tuple[Label, ...]:
    """Tie everything that shares an output channel; keep ids along the channel dimension only."""
    moved = np.moveaxis(ids, dim, 0).reshape(ids.shape[dim], -1)
    if moved.shape[0] == 1:
        ctx.pin(label, _ONE_LEFT)
        return ()
    ctx.unite(moved[:, :1], moved)
    shape = [1] * ids.ndim
    shape[dim] = -1
    return ctx.label_of(np.ascontiguousarray(moved[:, 0]).reshape(shape), label.zero, _ONE_LEFT)
