"""Importers of resizing and of moves between channels and space; it must never hold other moves of data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.table import Op, imports
from compressor.formats.onnx_import.values import Const, Size, Traced, Value, entries_of

aten = torch.ops.aten

_NEAREST = {1: aten.upsample_nearest1d.vec, 2: aten.upsample_nearest2d.vec, 3: aten.upsample_nearest3d.vec}
_LINEAR = {1: aten.upsample_linear1d.vec, 2: aten.upsample_bilinear2d.vec, 3: aten.upsample_trilinear3d.vec}
_TORCH_CUBIC = -0.75
_WHOLE = 1e-3
"""A size this near to a whole one was meant to be it: factors are stored in float32."""


@imports("Resize", "Upsample")
def resize(ctx: Emitter, op: Op) -> Value:
    """`upsample_nearest`, `linear` or `bicubic` where torch computes the same; other nearest modes by `index_select`.

    Linear and cubic with coordinates that torch does not have are refused.
    """
    x = ctx.traced(op.needed(0))
    before = x.spatial()
    after, scales = _target(ctx, op, x, before)
    if after == before and all(scale == 1 for scale in scales):
        return x
    mode = op.get("mode", "nearest")
    coordinates = op.get("coordinate_transformation_mode", "half_pixel" if op.kind == "Resize" else "asymmetric")
    if op.kind == "Upsample" or (op.opset < 11 and op.kind == "Resize"):
        coordinates = "asymmetric"
    if mode == "nearest":
        return _nearest(ctx, op, x, after, scales, coordinates)
    return _interpolated(ctx, op, x, after, scales, mode, coordinates)


def _target(ctx: Emitter, op: Op, x: Traced, before: Sequence[int]) -> tuple[list[int], list[float]]:
    """Sizes and scales of the spatial dimensions. Raises: ModelError if batch or channels change."""
    if op.kind == "Upsample" or op.opset < 11:
        given, sizes = op.given(1), None
    else:
        given, sizes = op.given(2), op.given(3)
    if op.get("axes") is not None and list(op.get("axes")) != list(range(2, x.rank)):
        raise ModelError("resizes only some of the dimensions")
    n = x.rank - 2
    if sizes is not None and not (isinstance(sizes, Const) and sizes.tensor.numel() == 0):
        wanted = list(entries_of(sizes).reshape(-1))[-n:]
        if any(isinstance(size, Size) for size in wanted):
            raise ModelError("resizes to a size that depends on the batch")
        if op.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise ModelError("keeps the aspect ratio, which is not supported")
        after = [int(size) for size in wanted]
        return after, [b / a for a, b in zip(before, after, strict=True)]
    if given is None or not isinstance(given, Const):
        raise ModelError("resizes by a factor that is computed")
    factors = [float(scale) for scale in given.tensor.reshape(-1)]
    if len(factors) == x.rank and factors[:2] != [1.0, 1.0]:
        raise ModelError("resizes the batch or the channels")
    factors = factors[-n:]
    is_whole = all(abs(a * f - round(a * f)) < _WHOLE for a, f in zip(before, factors, strict=True))
    if op.get("coordinate_transformation_mode") == "align_corners" and not is_whole:
        raise ModelError(
            "aligns corners after a factor that gives no whole size, which ONNX and onnxruntime do differently; "
            "export it with sizes"
        )
    # in float32, as runtimes do: 6 · float32(5/6) is 5 there, and a little less in higher precision
    return [int(np.floor(np.float32(a) * np.float32(f))) for a, f in zip(before, factors, strict=True)], factors


def _nearest(ctx: Emitter, op: Op, x: Traced, after: list[int], scales: list[float], coordinates: str) -> Value:
    rounding = op.get(
        "nearest_mode", "floor" if coordinates == "asymmetric" and op.opset < 11 else "round_prefer_floor"
    )
    chosen = [
        _positions(a, b, scale, coordinates, rounding) for a, b, scale in zip(x.spatial(), after, scales, strict=True)
    ]
    torchs = [np.minimum((np.arange(b) * (a / b)).astype(int), a - 1) for a, b in zip(x.spatial(), after, strict=True)]
    if x.rank - 2 in _NEAREST and all(np.array_equal(a, b) for a, b in zip(chosen, torchs, strict=True)):
        return ctx.call(_NEAREST[x.rank - 2], x, after, None)
    out: Any = x
    for i, positions in enumerate(chosen):
        if not np.array_equal(positions, np.arange(x.static(2 + i))):
            index = Const(torch.from_numpy(positions.astype(np.int64)), f"{op.outputs[0]}.positions")
            out = ctx.call(aten.index_select.default, out, 2 + i, index)
    return out


def _positions(before: int, after: int, scale: float, coordinates: str, rounding: str) -> np.ndarray:
    """The input position of every output position. Source: ONNX operator specification, Resize."""
    at = np.arange(after, dtype=np.float64)
    if coordinates in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        at = (at + 0.5) / scale - 0.5
        if coordinates == "pytorch_half_pixel" and after == 1:
            at = np.zeros(1)
    elif coordinates == "asymmetric":
        at = at / scale
    elif coordinates == "align_corners":
        at = at * ((before - 1) / (after - 1)) if after > 1 else np.zeros(1)
    else:
        raise ModelError(f"its coordinates ({coordinates}) are not supported")
    at = np.round(at, 6)
    rounded = {
        "round_prefer_floor": np.ceil(at - 0.5), "round_prefer_ceil": np.floor(at + 0.5), "floor": np.floor(at),
        "ceil": np.ceil(at),
    }  # fmt: skip
    if rounding not in rounded:
        raise ModelError(f"rounds to the nearest position by {rounding}, which is unknown")
    return np.clip(rounded[rounding], 0, before - 1).astype(np.int64)


def _interpolated(
    ctx: Emitter, op: Op, x: Traced, after: list[int], scales: list[float], mode: str, coordinates: str
) -> Value:
    n = x.rank - 2
    if coordinates not in ("half_pixel", "pytorch_half_pixel", "align_corners") or op.get("antialias", 0):
        raise ModelError(f"{mode} resizing with the coordinates {coordinates} is not what torch computes")
    if coordinates == "pytorch_half_pixel" and 1 in after:
        raise ModelError("resizes to a single position, which torch and ONNX do differently")
    aligned = coordinates == "align_corners"
    exact = all(abs(b / a - scale) < 1e-6 for a, b, scale in zip(x.spatial(), after, scales, strict=True))
    sizes, factors = (after, None) if exact or aligned else (None, scales)
    if mode == "linear" and n in _LINEAR:
        return ctx.call(_LINEAR[n], x, sizes, aligned, factors)
    is_torchs = abs(op.get("cubic_coeff_a", _TORCH_CUBIC) - _TORCH_CUBIC) < 1e-6 and not op.get("exclude_outside", 0)
    if mode == "cubic" and n == 2 and is_torchs:
        return ctx.call(aten.upsample_bicubic2d.vec, x, sizes, aligned, factors)
    raise ModelError(f"{mode} resizing of {n} dimensions with these coefficients is not supported")


@imports("DepthToSpace")
def depth_to_space(ctx: Emitter, op: Op) -> Value:
    """`pixel_shuffle` for the order CRD; otherwise reshaped, permuted and reshaped."""
    x, block = ctx.traced(op.needed(0)), op.get("blocksize")
    if op.get("mode", "DCR") == "CRD":
        return ctx.call(aten.pixel_shuffle.default, x, block)
    c, h, w = (x.static(dim) for dim in (1, 2, 3))
    split = ctx.call(aten.reshape.default, x, [*_batch(ctx, x), block, block, c // block**2, h, w])
    moved = ctx.call(aten.permute.default, split, [0, 3, 4, 1, 5, 2])
    return ctx.call(aten.reshape.default, moved, [*_batch(ctx, x), c // block**2, h * block, w * block])


@imports("SpaceToDepth")
def space_to_depth(ctx: Emitter, op: Op) -> Value:
    """`pixel_unshuffle` for the order CRD; otherwise reshaped, permuted and reshaped: blocks before channels."""
    x, block = ctx.traced(op.needed(0)), op.get("blocksize")
    if op.get("mode", "DCR") == "CRD":
        return ctx.call(aten.pixel_unshuffle.default, x, block)
    c, h, w = (x.static(dim) for dim in (1, 2, 3))
    split = ctx.call(aten.reshape.default, x, [*_batch(ctx, x), c, h // block, block, w // block, block])
    moved = ctx.call(aten.permute.default, split, [0, 3, 5, 1, 2, 4])
    return ctx.call(aten.reshape.default, moved, [*_batch(ctx, x), c * block**2, h // block, w // block])


def _batch(ctx: Emitter, x: Traced) -> list[int]:
    return [-1] if len(set(x.at(0))) > 1 else [x.static(0)]
