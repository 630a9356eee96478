"""Axis rules of means and variances, and whether units may pass them; it must never hold other rules.

A mean or a variance changes when its divisor does. `WalkOptions.through_norm` says what follows from that: the units
stay (`pin`), or they may go because the compacted graph keeps the original divisor (`exact`), or because the user
retrains afterwards (`rescale`). What a norm takes apart from all else may go as a whole without any of that: with `pin`
a group of a group norm is one unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch.fx import Node

from compressor.axes.ids import PASSABLE, Ids, Pin
from compressor.axes.labels import Label, Value
from compressor.axes.meeting import ids_along, join, no_partner, unify
from compressor.axes.rules_contract import tie_groups
from compressor.axes.table import Arguments, Context, rule
from compressor.program import families


def pass_statistics(ctx: Context, labels: Iterable[Label], dims: Iterable[int], what: str) -> None:
    """Pin the labels along `dims`, which a mean or a variance is taken over, unless the options let them pass.

    With the original divisor a sum over what is left is the sum over everything only where a removed position is 0.
    """
    over = set(dims)
    for label in labels:
        if not over & set(label.dims):
            continue
        if ctx.options.through_norm == "pin":
            ctx.pin(label, f"{what} {PASSABLE}")
        elif not set(label.dims) <= over:
            ctx.pin(label, f"{what}, and varies along other dimensions too")
        elif ctx.options.through_norm == "exact" and not label.zero:
            ctx.pin(label, f"{what} where a removed position would not be 0")


@rule(families.FEATURE_NORMS)
def layer_norm(ctx: Context, node: Node, a: Arguments) -> Value:
    """x.D = w.D = b.D, pinned unless --through-norm: mean and variance are taken over D."""
    x, n = a["input"], len(a["normalized_shape"])
    scales = [a[name] for name in ("weight", "bias") if a.get(name) is not None]
    pass_statistics(ctx, x.labels, range(x.rank - n, x.rank), f"normalised over {math.prod(x.sizes[-n:])} features")
    scaled = a.get("weight") is not None
    return unify(ctx, [x, *scales], lambda zeros: scaled and all(list(zeros)[1:]))


@rule(families.GROUP_NORM)
def group_norm(ctx: Context, node: Node, a: Arguments) -> Value:
    """x.C = w.C = b.C; each group one unit, one alone pinned; with --through-norm equal offsets of all are tied."""
    x, groups = a["input"], a["num_groups"]
    width = x.sizes[1] // groups
    scales = [a[name] for name in ("weight", "bias") if a.get(name) is not None]
    for dim in range(2, x.rank):
        ctx.pin(x.along(dim), "normalised over this dimension")
    channels = ids_along(ctx, x, 1)
    for scale in scales:
        if scale.sizes[0] > 1:
            join(ctx, channels, ids_along(ctx, scale, 0))
    is_whole = width == 1 or (groups > 1 and ctx.options.through_norm == "pin")
    given_zero = all(label.zero for label in x.along(1))
    if channels is not None and width > 1:
        _tie_channels(ctx, x, channels, groups, is_whole=is_whole)
    if is_whole and given_zero and not a["eps"] > 0:
        ctx.pin(x.along(1), "a removed group has a variance of 0, and nothing is added to it")
    silenced = a.get("weight") is not None and _is_zero([a["weight"]])
    zero = (silenced or (is_whole and given_zero)) and _is_zero(scales[-1:] if a.get("bias") is not None else [])
    return Value(
        ctx.out.sizes,
        tuple(label.with_zero(zero and label.dims == (1,)) for label in x.labels if label.dims in ((0,), (1,))),
    )


def _tie_channels(ctx: Context, x: Value, channels: Ids, groups: int, *, is_whole: bool) -> None:
    """What of a group norm goes together: the other groups do not notice that a whole one goes; of one group, or of
    parts of groups, the divisor changes."""
    if is_whole:
        per_group = channels.reshape(groups, -1)
        ctx.unite(per_group[:, :1], per_group)
        reason = f"the {groups} groups that this is normalised in are tied to one unit {PASSABLE}"
        ctx.whole.append((channels, Pin(reason, ctx.node)))
    else:
        pass_statistics(ctx, x.along(1), [1], f"normalised over {len(channels) // groups} channels each")
        tie_groups(ctx, channels, groups)


def _is_zero(scales: Iterable[Value]) -> bool:
    return all(label.zero for scale in scales for label in scale.labels)


@rule(families.CHANNEL_NORMS)
def channel_norm(ctx: Context, node: Node, a: Arguments) -> Value:
    """x.C = w.C = b.C = running mean.C = running variance.C; what its own statistics are taken over is pinned."""
    x = a["input"]
    scales = [a[name] for name in ("weight", "bias", "running_mean", "running_var") if a.get(name) is not None]
    channels = ids_along(ctx, x, 1) if x.rank > 1 else None
    own_statistics = a.get("use_input_stats") or a.get("training") or a.get("running_mean") is None
    if own_statistics:
        for dim in (dim for dim in range(x.rank) if dim != 1):
            ctx.pin(x.along(dim), f"standardised over {x.sizes[dim]} positions of this dimension")
    for scale in scales:
        ids = ids_along(ctx, scale, 0)
        if ids is not None and channels is not None:
            ctx.unite(ids, channels)
        elif ids is not None:
            ctx.ids.pin(ids, "normalises channels that have no units", ctx.node)
    if channels is not None and any(scale.sizes[0] > 1 and not scale.labels for scale in scales):
        ctx.ids.pin(channels, no_partner(*(scale for scale in scales if not scale.labels)), ctx.node)
    weight, bias = (a[name].labels if a.get(name) is not None else None for name in ("weight", "bias"))
    kept_zero = bias is None or all(label.zero for label in bias)
    scaled_to_zero = weight is not None and all(label.zero for label in weight)
    return Value(
        ctx.out.sizes,
        tuple(
            label.with_zero(kept_zero and label.dims == (1,) and (scaled_to_zero or (own_statistics and label.zero)))
            for label in x.labels
        ),
    )
