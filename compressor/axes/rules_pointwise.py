"""Axis rules of operators that work element by element.

It must never hold rules of operators that mix positions. Any operator that torch tags as pointwise is covered by
`pointwise`; the sets below say what each does to a position that is 0 in the masked model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch.fx import Node

from compressor.axes.labels import Value
from compressor.axes.meeting import ZeroRule, ids_along, unify
from compressor.axes.table import Arguments, Context, rule, values_in
from compressor.program import families, weight_of_choice

_KEEPS_ZERO = frozenset(
    {
        "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardtanh",
        "tanh", "tanhshrink", "softshrink", "hardshrink", "abs", "neg", "sin", "tan", "sinh", "asin", "asinh", "atan",
        "atanh", "erf", "expm1", "log1p", "sqrt", "square", "sign", "sgn", "floor", "ceil", "round", "trunc", "frac",
        "deg2rad", "rad2deg", "add", "sub", "rsub", "maximum", "minimum", "fmax", "fmin", "dropout", "alpha_dropout",
        "feature_dropout", "clone", "contiguous", "to", "_to_copy", "detach", "type_as", "positive", "nan_to_num",
        "rrelu", "lerp", "bitwise_and", "logical_and", "real", "hypot", "native_dropout",
    }
)  # fmt: skip
"""f(0) = 0, and f(0, 0) = 0 for the two-sided ones."""

_ZERO_IF_ANY = frozenset({"mul", "multiply", "logical_and", "bitwise_and", "__and__"})
_INFINITE_AT_ZERO = frozenset({"reciprocal", "rsqrt", "log", "log2", "log10", "digamma", "lgamma", "special_entr"})


@rule(*families.UNTAGGED)
def pointwise(ctx: Context, node: Node, a: Arguments) -> Value:
    """All operands united along the dimensions that they share at full size; a size of 1 ties nothing."""
    name = families.operator_name(node.target)
    if node.target in families.PRELU:
        return _prelu(ctx, a)
    if weight_of_choice(node) is not None:
        return _left_out(ctx, [a["self"], a["mask"]])
    operands = values_in(a)[:1] if node.target in families.CAST_LIKE else values_in(a)  # of the other its type alone
    if name in _INFINITE_AT_ZERO:
        _pin_zeros(ctx, operands[:1], name)
    if name in ("div", "divide", "true_divide", "floor_divide", "remainder", "fmod", "atan2") and len(operands) > 1:
        _pin_zeros(ctx, operands[1:], "division by")
    return unify(ctx, operands, zero_rule(name, a, operands))


def _left_out(ctx: Context, operands: Sequence[Value]) -> Value:
    """out.E = logits.E = router.E, minus infinity where an expert is removed."""
    value = unify(ctx, operands, _never)
    last = (value.rank - 1,)
    labels = tuple(replace(label, absent=True) if label.dims == last else label for label in value.labels)
    return Value(value.sizes, labels)


def zero_rule(name: str, a: Arguments, operands: Sequence[Value]) -> ZeroRule:
    """Whether the result is 0 where these operands are, for an operator of that name."""
    if name in _ZERO_IF_ANY:
        return any
    if name in ("div", "divide", "true_divide"):
        return lambda zeros: next(iter(zeros), False)
    if name == "pow":
        exponent = a.get("exponent")
        return all if isinstance(exponent, (int, float)) and exponent > 0 else _never
    if name in ("clamp", "clip"):
        low, high = a.get("min"), a.get("max")
        if isinstance(low, Value) or isinstance(high, Value):
            return _never
        return all if (low is None or low <= 0) and (high is None or high >= 0) else _never
    if name == "clamp_min":
        return all if isinstance(a.get("min"), (int, float)) and a["min"] <= 0 else _never
    if name in ("masked_fill", "where"):
        return _never
    if name == "zeros_like":
        return _ever
    scalars = [a[key] for key in ("other", "value") if isinstance(a.get(key), (int, float))]
    if name in ("add", "sub", "rsub") and any(value != 0 for value in scalars):
        return _never
    if name == "hardtanh":
        return all if a["min_val"] <= 0 <= a["max_val"] else _never
    return all if name in _KEEPS_ZERO else _never


def _never(zeros: Iterable[bool]) -> bool:
    return False


def _ever(zeros: Iterable[bool]) -> bool:
    return True


def _pin_zeros(ctx: Context, operands: Sequence[Value], what: str) -> None:
    for operand in operands:
        ctx.pin((label for label in operand.labels if label.zero), f"{what} of a removed position would not be finite")


def _prelu(ctx: Context, a: Arguments) -> Value:
    """The slope belongs to dimension 1, whatever the rank."""
    x, slope = a["self"], a["weight"]
    dim = 1 if x.rank > 1 else 0
    ids = ids_along(ctx, slope, 0)
    if ids is not None:
        shape = [-1 if d == dim else 1 for d in range(x.rank)]
        sizes = tuple(len(ids) if d == dim else 1 for d in range(x.rank))
        slope = Value(sizes, ctx.label_of(ids.reshape(shape), True, "one slope"))
    else:
        slope = Value((1,) * x.rank)
    return unify(ctx, [x, slope], lambda zeros: next(iter(zeros), False))


@rule(families.GLU)
def gated(ctx: Context, node: Node, a: Arguments) -> Value:
    """out.C = first half of x.C = second half of x.C; other dimensions pass."""
    x = a["self"]
    dim = x.normal_dim(a["dim"])
    labels = list(x.apart_from([dim]))
    ids = ids_along(ctx, x, dim)
    if ids is not None:
        values, gates = np.split(ids, 2)
        ctx.unite(values, gates)
        shape = [-1 if d == dim else 1 for d in range(x.rank)]
        zero = all(label.zero for label in x.along(dim))
        labels.extend(ctx.label_of(values.reshape(shape), zero, "a single gate"))
    return Value(ctx.out.sizes, tuple(labels))


@rule(families.WEIGHT_NORM)
def weight_norm(ctx: Context, node: Node, a: Arguments) -> Value:
    """out = v = g; pinned along the dimension that keeps its norms: a removed row has none to be divided by."""
    direction, dim = a["v"], a["v"].normal_dim(a["dim"])
    ctx.pin(direction.along(dim), "division by the norm of a removed position would not be finite")
    return unify(ctx, [direction, a["g"]], any)
