"""What rules share: how the labels of one operator's operands meet; it must never hold a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from compressor.axes.ids import Ids
from compressor.axes.labels import Label, Value
from compressor.axes.table import Context

ZeroRule: TypeAlias = Callable[[Iterable[bool]], bool]

NO_PARTNER = "is combined with a value that has no units along this dimension"


def no_partner(*others: Value) -> str:
    """The reason of what meets values without labels, with what is told of them."""
    why = next((other.why for other in others if other.why), "")
    return f"{NO_PARTNER}: {why}" if why else NO_PARTNER


def ids_along(ctx: Context, value: Value, dim: int) -> Ids | None:
    """Ids of `value` along `dim` alone, (size,); None when it has none. Labels over more dimensions are pinned."""
    found = None
    for label in value.along(dim):
        if len(label.dims) > 1:
            ctx.pin(label, "varies along several dimensions at once")
        elif found is None:
            found = label.ids
        else:
            ctx.unite(found, label.ids)
    return found


def join(ctx: Context, a: Ids | None, b: Ids | None, reason: str = NO_PARTNER) -> None:
    """Unite two sets of ids, or pin the one that has no partner."""
    if a is not None and b is not None:
        ctx.unite(a, b)
    elif a is not None or b is not None:
        ctx.ids.pin(a if a is not None else b, reason, ctx.node)  # type: ignore[arg-type]


def unify(ctx: Context, operands: Sequence[Value], zero_rule: ZeroRule, sizes: tuple[int, ...] | None = None) -> Value:
    """The value of an element-by-element operator: labels of all operands, united where they share dimensions.

    `zero_rule` gets, per operand, whether it is 0 at a removed position of the label at hand, and says whether the
    result is. An operand of full size along a label's dimension that has no label there pins it, unless it is uniform.
    """
    shape: tuple[int, ...] = ctx.out.sizes if sizes is None else sizes
    rank = len(shape)
    aligned = [_align(value, rank) for value in operands if value.rank <= rank]
    labels: list[Label] = []
    for position, operand in enumerate(aligned):
        for label in operand.labels:
            zeros = [_meet(ctx, label, other, i == position) for i, other in enumerate(aligned)]
            known = next((i for i, other in enumerate(labels) if other.dims == label.dims), None)
            if known is None:
                labels.append(label.with_zero(zero_rule(zeros)))
    return Value(shape, tuple(labels))


def _align(value: Value, rank: int) -> Value:
    by = rank - value.rank
    labels = tuple(label.shifted(by) for label in value.labels)
    return Value((1,) * by + value.sizes, labels, value.uniform, value.why)


def _meet(ctx: Context, label: Label, other: Value, is_own: bool) -> bool:
    """Unite `label` with what the other operand has along its dimensions; whether that is 0 at a removed position."""
    if is_own:
        return label.zero
    shared = [dim for dim in label.dims if other.sizes[dim] > 1]
    if not shared or other.uniform:
        return False
    partners = [partner for partner in other.labels if set(partner.dims) & set(shared)]
    covered = {dim for partner in partners for dim in partner.dims}
    if not set(shared) <= covered:
        ctx.pin(label, no_partner(other))
    for partner in partners:
        ctx.unite(label.at_rank(other.rank), partner.at_rank(other.rank))
    return bool(partners) and all(partner.zero for partner in partners)
