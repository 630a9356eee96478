"""Importers of poolings; it must never hold those of convolutions."""

from __future__ import annotations

import math
from typing import Any

import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.table import Op, imports
from compressor.formats.onnx_import.values import Const, Traced, Value
from compressor.formats.onnx_import.window import Window, pad_input, window_of

aten = torch.ops.aten

_MAX = {1: aten.max_pool1d.default, 2: aten.max_pool2d.default, 3: aten.max_pool3d.default}
_AVERAGE = {1: aten.avg_pool1d.default, 2: aten.avg_pool2d.default, 3: aten.avg_pool3d.default}
_GLOBAL = {
    1: aten.adaptive_avg_pool1d.default,
    2: aten.adaptive_avg_pool2d.default,
    3: aten.adaptive_avg_pool3d.default,
}


def _spatial(x: Traced, table: dict[int, Any]) -> Any:
    if x.rank - 2 not in table:
        raise ModelError(f"pools an input of {x.rank} dimensions")
    return table[x.rank - 2]


def _fits_torch(window: Window) -> bool:
    """Whether torch takes the padding itself: even, and at most half of the kernel."""
    within = all(0 <= 2 * n <= k for n, k in zip(window.begin, window.kernel, strict=True))
    return window.is_even and within


@imports("MaxPool")
def max_pool(ctx: Emitter, op: Op) -> Value:
    """`max_pool1d`, `2d` or `3d`; padding that torch does not take is a `pad` with -inf; no positions."""
    x = ctx.traced(op.needed(0))
    target, window = _spatial(x, _MAX), window_of(op, x, op.get("kernel_shape", ()))
    ceil = bool(op.get("ceil_mode", 0)) and op.get("auto_pad", "NOTSET") == "NOTSET"
    padding = window.begin
    if not _fits_torch(window):
        if not x.dtype.is_floating_point:
            raise ModelError("pads integers before a maximum")
        x = ctx.call(aten.pad.default, x, window.amounts, "constant", -math.inf)
        padding = [0] * len(padding)
    return ctx.call(target, x, window.kernel, window.strides, padding, window.dilations, ceil)


@imports("AveragePool")
def average_pool(ctx: Emitter, op: Op) -> Value:
    """`avg_pool1d`, `2d` or `3d`; where the padding is uneven and not counted, a sum divided by how many were there."""
    x = ctx.traced(op.needed(0))
    _spatial(x, _AVERAGE)
    window = window_of(op, x, op.get("kernel_shape", ()))
    if any(n != 1 for n in window.dilations):
        raise ModelError("averages over a dilated window, which torch cannot")
    ceil = bool(op.get("ceil_mode", 0)) and op.get("auto_pad", "NOTSET") == "NOTSET"
    return averaged(ctx, x, window, ceil=ceil, counts_padding=bool(op.get("count_include_pad", 0)))


def averaged(ctx: Emitter, x: Traced, window: Window, *, ceil: bool, counts_padding: bool) -> Value:
    """The mean over each window."""
    target = _AVERAGE[x.rank - 2]
    if _fits_torch(window):
        return ctx.call(target, x, window.kernel, window.strides, window.begin, ceil, counts_padding)
    padded, nothing = pad_input(
        ctx, x, Window(window.kernel, window.strides, window.dilations, window.begin, window.end)
    )
    if nothing != [0] * len(nothing):  # even, but more than torch takes
        padded, nothing = ctx.call(aten.pad.default, x, window.amounts), [0] * len(nothing)
    mean = ctx.call(target, padded, window.kernel, window.strides, nothing, ceil)
    if counts_padding and not ceil:
        return mean
    ones = torch.ones(1, 1, *x.spatial())
    inside = torch.nn.functional.pad(ones, window.amounts, value=1.0 if counts_padding else 0.0)
    share = target(inside, window.kernel, window.strides, nothing, ceil)
    return ctx.call(aten.div.Tensor, mean, Const(share, f"{_name(ctx)}.share"))


def _name(ctx: Emitter) -> str:
    return "" if ctx.op is None else ctx.op.outputs[0]


@imports("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(ctx: Emitter, op: Op) -> Value:
    """`adaptive_avg_pool` to one position, `amax` or a norm over all of them."""
    x = ctx.traced(op.needed(0))
    dims = list(range(2, x.rank))
    if op.kind == "GlobalMaxPool":
        return ctx.call(aten.amax.default, x, dims, True)
    if op.kind == "GlobalLpPool":
        return ctx.call(aten.linalg_vector_norm.default, x, op.get("p", 2), dims, True)
    return ctx.call(_spatial(x, _GLOBAL), x, [1] * len(dims))


@imports("LpPool")
def norm_pool(ctx: Emitter, op: Op) -> Value:
    """(Σ |x|^p)^(1/p) over a window, as an average times the window's size; padding adds nothing to it."""
    x, p = ctx.traced(op.needed(0)), op.get("p", 2)
    _spatial(x, _AVERAGE)
    window = window_of(op, x, op.get("kernel_shape", ()))
    if any(n != 1 for n in window.dilations) or op.get("ceil_mode", 0):
        raise ModelError("takes norms over a dilated window or one that reaches over the border")
    powered = ctx.call(aten.pow.Tensor_Scalar, ctx.call(aten.abs.default, x), p)
    mean = averaged(ctx, powered, window, ceil=False, counts_padding=True)
    total = ctx.call(aten.mul.Tensor, mean, math.prod(window.kernel))
    return ctx.call(aten.pow.Tensor_Scalar, total, 1 / p)
