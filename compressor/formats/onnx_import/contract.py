"""Importers of operators that multiply and sum: convolutions, matrix products, einsum.

It must never hold what a window's padding comes to; that is in `window`.
"""

from __future__ import annotations

import math

import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.naming import layer_of
from compressor.formats.onnx_import.table import Op, imports
from compressor.formats.onnx_import.values import Const, Traced, Value
from compressor.formats.onnx_import.window import frame_of, pad_input, window_of

aten = torch.ops.aten

_CONV = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
_TRANSPOSED = {
    1: aten.conv_transpose1d.default,
    2: aten.conv_transpose2d.input,
    3: aten.conv_transpose3d.input,
}


def learned(ctx: Emitter, value: Value | None, role: str, layer: str) -> Value | None:
    """A constant as a parameter of the layer; what is computed stays as it is."""
    return ctx.attached(value, role, layer) if isinstance(value, Const) else value


def _layer(op: Op, weight: Value) -> str:
    return layer_of(op.name, op.kind, weight.name if isinstance(weight, Const) else None)


@imports("Conv")
def convolution(ctx: Emitter, op: Op) -> Value:
    """`conv1d`, `conv2d` or `conv3d`; uneven padding is a `pad` before it."""
    x, weight = ctx.traced(op.needed(0)), ctx.tensor_of(op.needed(1))
    rank = x.rank - 2
    if rank not in _CONV or weight.rank != x.rank:
        raise ModelError(f"convolves over {rank} dimensions with a weight of {weight.rank}")
    layer = _layer(op, weight)
    kernel = [weight.static(dim) for dim in range(2, weight.rank)]
    window = window_of(op, x, kernel)
    x, padding = pad_input(ctx, x, window)
    groups = op.get("group", 1)
    bias = learned(ctx, op.given(2), "bias", layer)
    return ctx.call(
        _CONV[rank],
        x,
        learned(ctx, weight, "weight", layer),
        bias,
        window.strides,
        padding,
        window.dilations,
        groups,
    )


@imports("ConvTranspose")
def transposed_convolution(ctx: Emitter, op: Op) -> Value:
    """`conv_transpose1d`, `2d` or `3d`; uneven padding is cropped afterwards, an output that is larger is filled."""
    x, weight = ctx.traced(op.needed(0)), ctx.tensor_of(op.needed(1))
    rank = x.rank - 2
    if rank not in _TRANSPOSED:
        raise ModelError(f"convolves over {rank} dimensions")
    layer = _layer(op, weight)
    kernel = [weight.static(dim) for dim in range(2, weight.rank)]
    frame = frame_of(op, x, kernel)
    weight_, bias = learned(ctx, weight, "weight", layer), learned(ctx, op.given(2), "bias", layer)
    groups = op.get("group", 1)
    if any(frame.beyond):  # nothing is summed there, so all that is there is the bias
        out = ctx.call(
            _TRANSPOSED[rank], x, weight_, None, frame.strides, frame.padding, frame.extra, groups, frame.dilations
        )
        out = ctx.call(aten.pad.default, out, frame.amounts)
        return out if bias is None else ctx.call(aten.add.Tensor, out, _per_channel(ctx, bias, rank))
    out = ctx.call(
        _TRANSPOSED[rank], x, weight_, bias, frame.strides, frame.padding, frame.extra, groups, frame.dilations
    )
    return ctx.call(aten.pad.default, out, frame.amounts) if any(frame.amounts) else out


def _per_channel(ctx: Emitter, bias: Value, rank: int) -> Value:
    """(C,) as (C, 1, 1) beside an image."""
    return ctx.call(aten.reshape.default, bias, [-1, *[1] * rank])


@imports("Gemm")
def gemm(ctx: Emitter, op: Op) -> Value:
    """`linear` with a constant matrix, its factors put into the weights; otherwise a product and a sum."""
    a, b, c = op.needed(0), op.needed(1), op.given(2)
    alpha, beta = op.get("alpha", 1.0), op.get("beta", 1.0)
    if op.get("transA", 0):
        a = ctx.call(aten.permute.default, a, [1, 0])
    if isinstance(b, Const) and isinstance(a, Traced):
        weight = b if op.get("transB", 0) else ctx.transposed(b)
        weight = weight if alpha == 1 else ctx.call(aten.mul.Tensor, weight, alpha)
        if c is not None and beta != 1:
            c = ctx.call(aten.mul.Tensor, c, beta)
        bias = _as_bias(c, weight.static(0))
        out = linear(ctx, op, a, weight, bias)
        return out if c is None or bias is not None else ctx.call(aten.add.Tensor, out, c)
    if op.get("transB", 0):
        b = ctx.call(aten.permute.default, b, [1, 0])
    out = ctx.call(aten.matmul.default, a, b)
    out = out if alpha == 1 else ctx.call(aten.mul.Tensor, out, alpha)
    if c is None:
        return out
    return ctx.call(aten.add.Tensor, out, c if beta == 1 else ctx.call(aten.mul.Tensor, c, beta))


@imports("MatMul")
def matmul(ctx: Emitter, op: Op) -> Value:
    """`linear` with a constant matrix on the right, and with the bias that is added to it; otherwise `matmul`."""
    a, b = op.needed(0), op.needed(1)
    if not (isinstance(a, Traced) and isinstance(b, Const) and b.rank == 2 and b.tensor.is_floating_point()):
        return ctx.call(aten.matmul.default, a, b)
    weight = ctx.transposed(b)
    bias = _bias_added_next(ctx, op, weight.static(0), a.rank)
    out = linear(ctx, op, a, weight, bias)
    if bias is not None:
        ctx.absorbed[ctx.consumers[op.outputs[0]][0].output[0]] = out
    return out


def linear(ctx: Emitter, op: Op, x: Value, weight: Const, bias: Const | None) -> Value:
    """A linear layer with its parameters."""
    layer = _layer(op, weight)
    bias_ = None if bias is None else ctx.attached(bias, "bias", layer)
    return ctx.call(aten.linear.default, x, ctx.attached(weight, "weight", layer), bias_)


def _as_bias(value: Value | None, n_out: int) -> Const | None:
    """A constant that is one number per output, as a vector; None if it is anything else."""
    if not isinstance(value, Const) or math.prod(value.tensor.shape[:-1]) != 1 or value.rank == 0:
        return None
    if value.tensor.shape[-1] != n_out:
        return None
    return value if value.rank == 1 else Const(value.tensor.reshape(-1), value.name, value.trained)


def _bias_added_next(ctx: Emitter, op: Op, n_out: int, rank: int) -> Const | None:
    """The vector that the only reader of this product adds to it."""
    readers = ctx.consumers.get(op.outputs[0], ())
    if len(readers) != 1 or readers[0].op_type != "Add" or len(readers[0].input) != 2:
        return None
    other = next((name for name in readers[0].input if name != op.outputs[0]), None)
    value = ctx.known(other) if other is not None else None
    if isinstance(value, Const) and value.rank > rank:
        return None
    return _as_bias(value, n_out)


@imports("Einsum")
def einsum(ctx: Emitter, op: Op) -> Value:
    """`einsum` of the same equation."""
    equation = op.get("equation", "").replace(" ", "")
    if "->" not in equation:
        letters = equation.replace(",", "").replace(".", "")
        once = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
        equation += "->" + ("..." if "..." in equation else "") + once
    return ctx.call(aten.einsum.default, equation, [value for value in op.inputs if value is not None])
