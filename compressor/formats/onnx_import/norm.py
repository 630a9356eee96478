"""Importers of normalisations; it must never hold those of reductions that a normalisation may be written with."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.errors import ModelError
from compressor.formats.onnx_import.contract import learned
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.naming import layer_of
from compressor.formats.onnx_import.table import Op, imports
from compressor.formats.onnx_import.values import Const, Traced, Value

aten = torch.ops.aten

_EPSILON = 1e-5


def _layer(op: Op) -> str:
    scale = op.given(1)
    return layer_of(op.name, op.kind, scale.name if isinstance(scale, Const) else None)


@imports("BatchNormalization")
def batch_norm(ctx: Emitter, op: Op) -> Value:
    """`batch_norm` in evaluation mode, with the running statistics as buffers."""
    if op.get("training_mode", 0):
        raise ModelError("normalises with the batch's own statistics; export the network in evaluation mode")
    layer = _layer(op)
    weight, bias = (learned(ctx, op.given(i), role, layer) for i, role in ((1, "weight"), (2, "bias")))
    mean, variance = (op.needed(i) for i in (3, 4))
    if not isinstance(mean, Const) or not isinstance(variance, Const):
        raise ModelError("computes its running statistics, which is not supported")
    mean, variance = ctx.attached(mean, "running_mean", layer), ctx.attached(variance, "running_var", layer)
    momentum = 1 - op.get("momentum", 0.9)
    return ctx.call(
        aten.batch_norm.default, ctx.traced(op.needed(0)), weight, bias, mean, variance, False, momentum,
        op.get("epsilon", _EPSILON), True,
    )  # fmt: skip


@imports("InstanceNormalization")
def instance_norm(ctx: Emitter, op: Op) -> Value:
    """`instance_norm`; scales of 1 and shifts of 0 that no one trained are left out."""
    weight, bias, layer = op.needed(1), op.needed(2), _layer(op)
    scales: tuple[Value | None, Value | None] = (None, None)
    if not (_is_all(weight, 1.0) and _is_all(bias, 0.0)):
        scales = (learned(ctx, weight, "weight", layer), learned(ctx, bias, "bias", layer))
    epsilon = op.get("epsilon", _EPSILON)
    return ctx.call(
        aten.instance_norm.default, ctx.traced(op.needed(0)), *scales, None, None, True, 0.0, epsilon, False
    )


def _is_all(value: Value, number: float) -> bool:
    return isinstance(value, Const) and not value.trained and bool((value.tensor == number).all())


@imports("GroupNormalization")
def group_norm(ctx: Emitter, op: Op) -> Value:
    """`group_norm`; scales were one per group before opset 21."""
    x, n_groups, layer = ctx.traced(op.needed(0)), op.get("num_groups"), _layer(op)
    n_channels = x.static(1)
    scales: list[Value] = []
    for position, role in ((1, "weight"), (2, "bias")):
        scale = op.needed(position)
        if not isinstance(scale, Const):
            scales.append(scale)  # torch takes one that is computed, as long as it has no samples
            continue
        if scale.static(0) != n_channels:
            ctx.budget.take_elements(n_channels)
            repeated = scale.tensor.repeat_interleave(n_channels // n_groups)
            scale = Const(repeated, scale.name, scale.trained)
        scales.append(ctx.attached(scale, role, layer))
    return ctx.call(aten.group_norm.default, x, n_groups, *scales, op.get("epsilon", _EPSILON), False)


@imports("LayerNormalization", "RMSNormalization")
def layer_norm(ctx: Emitter, op: Op) -> Value:
    """`layer_norm` or `rms_norm` over the dimensions from `axis` on."""
    x, layer, epsilon = ctx.traced(op.needed(0)), _layer(op), op.get("epsilon", _EPSILON)
    shape = [x.static(dim) for dim in range(op.get("axis", -1) % x.rank, x.rank)]
    if not all(_is_of(value, shape) for value in (op.given(1), op.given(2))):
        return _scaled_apart(ctx, op, x, shape)
    weight = learned(ctx, _whole(op.given(1), shape), "weight", layer)
    if op.kind == "RMSNormalization":
        return ctx.call(aten.rms_norm.default, x, shape, weight, epsilon)
    bias = learned(ctx, _whole(op.given(2), shape), "bias", layer)
    return ctx.call(aten.layer_norm.default, x, shape, weight, bias, epsilon, False)


def _is_of(value: Value | None, shape: list[int]) -> bool:
    """Whether the operator itself takes a scale: it is fixed, or computed and as large as what is normalised."""
    if not isinstance(value, Traced):
        return True
    return value.rank == len(shape) and all(value.at(dim) == (n,) * len(value.metas) for dim, n in enumerate(shape))


def _scaled_apart(ctx: Emitter, op: Op, x: Traced, shape: list[int]) -> Value:
    """Scale and shift that are computed for every sample, as a product and a sum of their own."""
    epsilon = op.get("epsilon", _EPSILON)
    if op.kind == "RMSNormalization":
        out = ctx.call(aten.rms_norm.default, x, shape, None, epsilon)
    else:
        out = ctx.call(aten.layer_norm.default, x, shape, None, None, epsilon, False)
    out = ctx.call(aten.mul.Tensor, out, op.needed(1))
    shift = op.given(2) if op.kind == "LayerNormalization" else None
    return out if shift is None else ctx.call(aten.add.Tensor, out, shift)


def _whole(value: Value | None, shape: list[int]) -> Value | None:
    """A scale of exactly the normalised shape: ONNX lets it be broadcast, ATen does not."""
    if not isinstance(value, Const) or list(value.tensor.shape) == shape:
        return value
    stretched: Tensor = value.tensor.reshape(value.tensor.shape[-len(shape) :]).expand(shape)
    return Const(stretched, value.name, value.trained)


@imports("LpNormalization")
def lp_norm(ctx: Emitter, op: Op) -> Value:
    """x divided by its norm along one dimension, zeros by nothing."""
    x = ctx.traced(op.needed(0))
    norm = ctx.call(aten.linalg_vector_norm.default, x, op.get("p", 2), [op.get("axis", -1)], True)
    return ctx.call(aten.div.Tensor, x, ctx.call(aten.clamp.default, norm, 1e-12))


@imports("LRN")
def local_response(ctx: Emitter, op: Op) -> Value:
    """x / (bias + alpha / size · Σ x² over neighbouring channels)^beta, as an average over padded channels."""
    x, size = ctx.traced(op.needed(0)), op.get("size")
    if x.rank != 4:
        raise ModelError(f"normalises over channels of an input of {x.rank} dimensions, 4 are supported")
    squared = ctx.call(aten.unsqueeze.default, ctx.call(aten.mul.Tensor, x, x), 1)
    padded = ctx.call(aten.pad.default, squared, [0, 0, 0, 0, (size - 1) // 2, size // 2])
    mean = ctx.call(aten.avg_pool3d.default, padded, [size, 1, 1], [1, 1, 1])
    scaled = ctx.call(aten.mul.Tensor, ctx.call(aten.squeeze.dim, mean, 1), op.get("alpha", 1e-4))
    base = ctx.call(aten.add.Tensor, scaled, op.get("bias", 1.0))
    return ctx.call(aten.div.Tensor, x, ctx.call(aten.pow.Tensor_Scalar, base, op.get("beta", 0.75)))
