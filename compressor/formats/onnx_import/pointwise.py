"""Importers of operators that work element by element: arithmetic, comparisons, activations, casts.

It must never hold an importer of an operator that mixes positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import TensorProto

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.naming import is_made_up
from compressor.formats.onnx_import.table import Op, imports
from compressor.formats.onnx_import.values import Const, Traced, Value
from compressor.program.element_types import ELEMENT_TYPES

aten = torch.ops.aten
_torch: Any = torch  # its stubs say nothing about broadcast_shapes

DTYPES: dict[int, torch.dtype] = {
    TensorProto.DataType.Value(kind.onnx): getattr(torch, kind.widened) for kind in ELEMENT_TYPES
}
"""ONNX element type -> torch's; the 16-bit floats are widened, as the tensors are."""

_UNARY = {
    "Abs": aten.abs.default, "Acos": aten.acos.default, "Acosh": aten.acosh.default, "Asin": aten.asin.default,
    "Asinh": aten.asinh.default, "Atan": aten.atan.default, "Atanh": aten.atanh.default, "Ceil": aten.ceil.default,
    "Cos": aten.cos.default, "Cosh": aten.cosh.default, "Erf": aten.erf.default, "Exp": aten.exp.default,
    "Floor": aten.floor.default, "HardSwish": aten.hardswish.default, "Log": aten.log.default,
    "Mish": aten.mish.default, "Neg": aten.neg.default, "Not": aten.logical_not.default,
    "Reciprocal": aten.reciprocal.default,
    "Relu": aten.relu.default, "Round": aten.round.default, "Sigmoid": aten.sigmoid.default,
    "Sign": aten.sign.default, "Sin": aten.sin.default, "Sinh": aten.sinh.default, "Sqrt": aten.sqrt.default,
    "Tan": aten.tan.default,
    "Tanh": aten.tanh.default, "IsNaN": aten.isnan.default, "BitwiseNot": aten.bitwise_not.default,
}  # fmt: skip

_TENSOR_ONLY = {
    "And": aten.logical_and.default, "Or": aten.logical_or.default, "Xor": aten.logical_xor.default,
    "BitwiseAnd": aten.bitwise_and.Tensor, "BitwiseOr": aten.bitwise_or.Tensor, "BitwiseXor": aten.bitwise_xor.Tensor,
}  # fmt: skip

_COMPARISONS = {
    "Equal": (aten.eq, aten.eq), "Greater": (aten.gt, aten.lt), "GreaterOrEqual": (aten.ge, aten.le),
    "Less": (aten.lt, aten.gt), "LessOrEqual": (aten.le, aten.ge),
}  # fmt: skip
"""The operator, and its mirror image for a number on the left."""


def plain_number(value: Value, beside: Value) -> Any:
    """A lone constant as a Python number, where writing it so changes neither shape nor training; None otherwise.

    A parameter of one element that its exporter left a name (a learned temperature) stays a tensor.
    """
    if not isinstance(value, Const) or value.tensor.numel() != 1 or value.rank > beside.rank:
        return None
    if value.trained and "." in value.name and not is_made_up(value.name):
        return None
    return value.tensor.reshape(()).item()


@imports(*_UNARY)
def unary(ctx: Emitter, op: Op) -> Value:
    """The ATen operator of the same name."""
    return ctx.call(_UNARY[op.kind], op.needed(0))


@imports(*_TENSOR_ONLY)
def logical(ctx: Emitter, op: Op) -> Value:
    """The ATen operator of the same name."""
    return ctx.call(_TENSOR_ONLY[op.kind], op.needed(0), op.needed(1))


@imports("Add", "Sum")
def add(ctx: Emitter, op: Op) -> Value:
    """`add` of two, or of one after the other."""
    total = op.needed(0)
    for other in op.inputs[1:]:
        assert other is not None
        total = _add(ctx, total, other)
    return total


def _add(ctx: Emitter, x: Value, y: Value) -> Value:
    if plain_number(x, y) is not None:
        x, y = y, x
    number = plain_number(y, x)
    return ctx.call(aten.add.Tensor, x, y if number is None else number)


@imports("Sub")
def subtract(ctx: Emitter, op: Op) -> Value:
    """`sub`, or `rsub` of a number."""
    x, y = op.needed(0), op.needed(1)
    left, right = plain_number(x, y), plain_number(y, x)
    if left is not None and right is None:
        return ctx.call(aten.rsub.Scalar, y, left)
    return ctx.call(aten.sub.Tensor, x, y if right is None else right)


@imports("Mul")
def multiply(ctx: Emitter, op: Op) -> Value:
    """`mul`."""
    x, y = op.needed(0), op.needed(1)
    if plain_number(x, y) is not None:
        x, y = y, x
    number = plain_number(y, x)
    return ctx.call(aten.mul.Tensor, x, y if number is None else number)


@imports("Div")
def divide(ctx: Emitter, op: Op) -> Value:
    """`div`; integers are cut towards zero."""
    x, y = op.needed(0), op.needed(1)
    left, right = plain_number(x, y), plain_number(y, x)
    if not x.dtype.is_floating_point:
        x, y = _divisible(ctx, x, y)
        right = plain_number(y, x)
        return ctx.call(aten.div.Tensor_mode, x, y if right is None else right, rounding_mode="trunc")
    if left is not None and right is None:
        inverse = ctx.call(aten.reciprocal.default, y)
        return inverse if left == 1 else ctx.call(aten.mul.Tensor, inverse, left)
    return ctx.call(aten.div.Tensor, x, y if right is None else right)


@imports("Mod")
def modulo(ctx: Emitter, op: Op) -> Value:
    """`remainder` (the divisor's sign), or `fmod` (the dividend's) with `fmod=1`."""
    x, y = op.needed(0), op.needed(1)
    if not x.dtype.is_floating_point:
        x, y = _divisible(ctx, x, y)
    return ctx.call(aten.fmod.Tensor if op.get("fmod", 0) else aten.remainder.Tensor, x, y)


def _divisible(ctx: Emitter, x: Value, y: Value) -> tuple[Value, Value]:
    """Whole numbers with the same quotient, and a remainder of 0, where the divisor is -1; by 1 where it is 0.

    The smallest whole number has no negative, and a processor that divides it by -1, or anything by 0, stops the
    process: the network must be one that never asks it to, whatever goes in.
    """
    x, y = ctx.tensor_of(x), ctx.tensor_of(y)
    if isinstance(y, Const) and not bool(((y.tensor == -1) & y.tensor.dtype.is_signed | (y.tensor == 0)).any()):
        return x, y
    ctx.divisions.append((x, y))
    is_minus_one = ctx.call(aten.eq.Scalar, y, -1)
    turned = ctx.call(aten.where.self, is_minus_one, ctx.call(aten.neg.default, x), x)
    some = ctx.call(aten.masked_fill.Scalar, y, ctx.call(aten.eq.Scalar, y, 0), 1)
    return turned, ctx.call(aten.masked_fill.Scalar, some, is_minus_one, 1)


@imports("Pow")
def power(ctx: Emitter, op: Op) -> Value:
    """`pow`; of a number as exponent where it is one, as an integer where it is whole. Integers stay integers."""
    x, exponent = op.needed(0), op.needed(1)
    if not x.dtype.is_floating_point:
        return _whole_power(ctx, x, exponent)
    number, base = plain_number(exponent, x), plain_number(x, exponent)
    if number is not None:
        whole = float(number).is_integer()
        return ctx.call(aten.pow.Tensor_Scalar, x, int(number) if whole else number)
    if base is not None:
        return ctx.call(aten.pow.Scalar, base, exponent)
    return ctx.call(aten.pow.Tensor_Tensor, x, exponent)


def _whole_power(ctx: Emitter, x: Value, exponent: Value) -> Value:
    """The power in float64, cut to the integers that the base has."""
    number = plain_number(exponent, x)
    if number is not None and float(number).is_integer() and number >= 0:
        return ctx.call(aten.pow.Tensor_Scalar, x, int(number))
    wide, beside = (ctx.call(aten.to.dtype, value, torch.float64) for value in (x, exponent))
    return ctx.call(aten.to.dtype, ctx.call(aten.pow.Tensor_Tensor, wide, beside), x.dtype)


@imports("Min", "Max")
def extremum(ctx: Emitter, op: Op) -> Value:
    """`minimum` or `maximum`; `clamp` where the other is a number."""
    best = op.needed(0)
    for other in op.inputs[1:]:
        assert other is not None
        if plain_number(best, other) is not None:
            best, other = other, best
        number = plain_number(other, best)
        if number is not None and isinstance(best, Traced):
            best = ctx.call(aten.clamp.default, best, **{"max" if op.kind == "Min" else "min": number})
        else:
            best = ctx.call(aten.minimum.default if op.kind == "Min" else aten.maximum.default, best, other)
    return best


@imports("Mean")
def mean_of_several(ctx: Emitter, op: Op) -> Value:
    """The sum, divided by how many there are."""
    return ctx.call(aten.div.Tensor, add(ctx, op), len(op.inputs))


@imports(*_COMPARISONS)
def compare(ctx: Emitter, op: Op) -> Value:
    """`eq`, `gt`, `ge`, `lt` or `le`."""
    x, y = op.needed(0), op.needed(1)
    packet, mirrored = _COMPARISONS[op.kind]
    if isinstance(x, Const) and isinstance(y, Const):
        return ctx.call(packet.Tensor, x, y)
    number = plain_number(y, x)
    if number is not None:
        return ctx.call(packet.Scalar, x, number)
    number = plain_number(x, y)
    return ctx.call(packet.Tensor, x, y) if number is None else ctx.call(mirrored.Scalar, y, number)


@imports("Where")
def where(ctx: Emitter, op: Op) -> Value:
    """`where`; a condition that is known and uniform chooses while importing."""
    condition, x, y = (op.needed(i) for i in range(3))
    if isinstance(condition, Const) and condition.is_uniform and condition.tensor.numel():
        chosen = x if bool(condition.tensor.reshape(-1)[0]) else y
        sizes = {v.metas[0].shape for v in (x, y) if isinstance(v, Traced)}
        if isinstance(chosen, Traced) and len(sizes) == 1 and condition.rank <= chosen.rank:
            whole = _torch.broadcast_shapes(condition.tensor.shape, chosen.metas[0].shape)
            if whole == chosen.metas[0].shape:
                return chosen
    return ctx.call(aten.where.self, condition, x, y)


@imports("Clip")
def clip(ctx: Emitter, op: Op) -> Value:
    """`clamp`: `relu6` for 0 to 6, `maximum` and `minimum` for bounds that are computed; attributes before opset 11."""
    if any(not isinstance(bound, Const | None) for bound in (op.given(1), op.given(2))):
        return _clipped_by_tensors(ctx, op)
    low = op.get("min") if op.opset < 11 else ctx.scalar(op.given(1))
    high = op.get("max") if op.opset < 11 else ctx.scalar(op.given(2))
    if low is not None and low <= torch.finfo(torch.float32).min:
        low = None
    if high is not None and high >= torch.finfo(torch.float32).max:
        high = None
    if low is None and high is None:
        return op.needed(0)
    if (low, high) == (0, 6):
        return ctx.call(aten.relu6.default, op.needed(0))
    return ctx.call(aten.clamp.default, op.needed(0), low, high)


def _clipped_by_tensors(ctx: Emitter, op: Op) -> Value:
    x, low, high = op.needed(0), op.given(1), op.given(2)
    x = x if low is None else ctx.call(aten.maximum.default, x, low)
    return x if high is None else ctx.call(aten.minimum.default, x, high)


@imports("LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "Selu")
def rectifier(ctx: Emitter, op: Op) -> Value:
    """The ATen operator of the same name with its slope; a thresholded one is a product with a comparison."""
    x = op.needed(0)
    if op.kind == "LeakyRelu":
        return ctx.call(aten.leaky_relu.default, x, op.get("alpha", 0.01))
    if op.kind == "Selu":
        return _selu(ctx, op, x)
    if op.kind == "ThresholdedRelu":
        above = ctx.call(aten.gt.Scalar, x, op.get("alpha", 1.0))
        return ctx.call(aten.mul.Tensor, x, ctx.call(aten.type_as.default, above, x))
    return ctx.call(aten.elu.default if op.kind == "Elu" else aten.celu.default, x, op.get("alpha", 1.0))


_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


def _selu(ctx: Emitter, op: Op, x: Value) -> Value:
    alpha, gamma = op.get("alpha", _SELU[0]), op.get("gamma", _SELU[1])
    if np.allclose((alpha, gamma), _SELU, rtol=1e-6):
        return ctx.call(aten.selu.default, x)
    return ctx.call(aten.mul.Tensor, ctx.call(aten.elu.default, x, alpha), gamma)


_FLOAT32 = 1e-7
"""How far a number is at most from what float32 makes of it, around 1."""


@imports("HardSigmoid")
def hard_sigmoid(ctx: Emitter, op: Op) -> Value:
    """`hardsigmoid` where its slope is 1/6; otherwise a clamped line."""
    x, alpha, beta = op.needed(0), op.get("alpha", 0.2), op.get("beta", 0.5)
    if abs(alpha - 1 / 6) < _FLOAT32 and beta == 0.5:
        return ctx.call(aten.hardsigmoid.default, x)
    line = ctx.call(aten.add.Tensor, ctx.call(aten.mul.Tensor, x, alpha), beta)
    return ctx.call(aten.clamp.default, line, 0.0, 1.0)


@imports("Softplus", "Softsign", "Shrink", "Gelu", "Swish", "IsInf", "Identity")
def smooth(ctx: Emitter, op: Op) -> Value:
    """`softplus`, x / (1 + |x|), a shrink, `gelu`, x · sigmoid(alpha · x), `isinf`; identity is nothing."""
    x = op.needed(0)
    if op.kind == "Identity":
        return _renamed(x, op.outputs[0])
    if op.kind == "Softplus":
        return ctx.call(aten.softplus.default, x)
    if op.kind == "Softsign":
        return ctx.call(aten.div.Tensor, x, ctx.call(aten.add.Tensor, ctx.call(aten.abs.default, x), 1.0))
    if op.kind == "Gelu":
        return ctx.call(aten.gelu.default, x, approximate=op.get("approximate", "none"))
    if op.kind == "Swish":
        return _swish(ctx, x, op.get("alpha", 1.0))
    if op.kind == "IsInf":
        if not (op.get("detect_negative", 1) and op.get("detect_positive", 1)):
            raise ModelError("only infinities of both signs can be looked for")
        return ctx.call(aten.isinf.default, x)
    return _shrink(ctx, x, op.get("lambd", 0.5), op.get("bias", 0.0))


def _renamed(x: Value, name: str) -> Value:
    """An exporter that stores equal tensors once writes an identity for each of the others, under its own name."""
    if isinstance(x, Const) and x.is_uniform and x.trained and not is_made_up(name):
        return Const(x.tensor, name, x.trained)
    return x


def _swish(ctx: Emitter, x: Value, alpha: float) -> Value:
    if alpha == 1.0:
        return ctx.call(aten.silu.default, x)
    return ctx.call(aten.mul.Tensor, x, ctx.call(aten.sigmoid.default, ctx.call(aten.mul.Tensor, x, alpha)))


def _shrink(ctx: Emitter, x: Value, bound: float, bias: float) -> Value:
    if bias == bound:
        return ctx.call(aten.softshrink.default, x, bound)
    if bias == 0:
        return ctx.call(aten.hardshrink.default, x, bound)
    outside = ctx.call(aten.hardshrink.default, x, bound)
    return ctx.call(aten.sub.Tensor, outside, ctx.call(aten.mul.Tensor, ctx.call(aten.sign.default, outside), bias))


@imports("PRelu")
def prelu(ctx: Emitter, op: Op) -> Value:
    """`prelu` for a slope per channel or a single one; any other slope by its definition."""
    x, slope = op.needed(0), op.needed(1)
    shape = tuple(slope.tensor.shape) if isinstance(slope, Const) else ()
    n_channels = x.at(1) if isinstance(x, (Traced, Const)) and x.rank > 1 else (1,)
    # ONNX lines slopes up with the last dimensions, so one per channel is (C, 1, 1) before an image
    per_channel = len(shape) == x.rank - 1 > 0 and set(shape[1:]) <= {1} and set(shape[:1]) == set(n_channels)
    if isinstance(slope, Const) and (slope.tensor.numel() == 1 or per_channel):
        flat = Const(slope.tensor.reshape(-1), slope.name, slope.trained)
        return ctx.call(aten.prelu.default, x, ctx.attached(flat, "weight"))
    positive = ctx.call(aten.relu.default, x)
    return ctx.call(aten.add.Tensor, positive, ctx.call(aten.mul.Tensor, slope, ctx.call(aten.sub.Tensor, x, positive)))


@imports("Cast", "CastLike")
def cast(ctx: Emitter, op: Op) -> Value:
    """`to`; nothing where the type stays, and 16-bit floats are float32."""
    x = op.needed(0)
    dtype = DTYPES.get(op.get("to")) if op.kind == "Cast" else op.needed(1).dtype
    if dtype is None:
        raise ModelError(f"casts to a type that is not supported ({op.get('to')})")
    return x if x.dtype == dtype else ctx.call(aten.to.dtype, x, dtype)


@imports("Dropout")
def dropout(ctx: Emitter, op: Op) -> Value:
    """`dropout` in evaluation mode, which `compress retrain` switches on; its mask is not supported."""
    ratio = op.get("ratio", 0.5) if op.opset < 12 else ctx.scalar(op.given(1), 0.5)
    if op.opset >= 12 and ctx.scalar(op.given(2), False):
        raise ModelError("drops values at random, as in training; export the network in evaluation mode")
    if not isinstance(op.needed(0), Traced):
        return op.needed(0)
    return ctx.call(aten.dropout.default, op.needed(0), float(ratio), False)
