"""Importers of resizing and of moves between channels and space; it must never hold other moves of data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.table import Op, imports
from compressor.formats.onnx_import.values import Const, Number, Size, Traced, Value, entries_of, value_at
from compressor.typed_torch import from_numpy

aten = torch.ops.aten

_NEAREST = {1: aten.upsample_nearest1d.vec, 2: aten.upsample_nearest2d.vec, 3: aten.upsample_nearest3d.vec}
_LINEAR = {1: aten.upsample_linear1d.vec, 2: aten.upsample_bilinear2d.vec, 3: aten.upsample_trilinear3d.vec}
_TORCH_CUBIC = -0.75


@dataclass(frozen=True)
class _Target:
    """What the dimensions behind the channels measure before and after at each trial, alike ones once.

    `sizes` are what comes after as an argument of the call; `factors` are the file's own, where it gives those.
    """

    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    sizes: tuple[Number, ...] | None
    factors: tuple[float, ...] | None

    @property
    def is_open(self) -> bool:
        """Whether sizes differ between the trials."""
        return len(self.before) > 1

    def scales(self, trial: int) -> tuple[float, ...]:
        if self.factors is not None:
            return self.factors
        return tuple(b / a for a, b in zip(self.before[trial], self.after[trial], strict=True))

    @property
    def changes_nothing(self) -> bool:
        return self.before == self.after and all(
            scale == 1 for t in range(len(self.before)) for scale in self.scales(t)
        )


@imports("Resize", "Upsample")
def resize(ctx: Emitter, op: Op) -> Value:
    """`upsample_nearest`, `linear` or `bicubic` where torch computes the same; else by `index_select`, linear ones too.

    Cubic with coordinates that torch does not have is refused.
    """
    x = ctx.traced(op.needed(0))
    target = _target(op, x)
    if any(size < 1 for after in target.after for size in after):
        raise ModelError("resizes to nothing")
    ctx.budget.take_elements(sum(map(sum, target.before)) + sum(map(sum, target.after)))
    if target.changes_nothing:
        return x
    mode = op.get("mode", "nearest")
    coordinates = op.get("coordinate_transformation_mode", "half_pixel" if op.kind == "Resize" else "asymmetric")
    if op.kind == "Upsample" or (op.opset < 11 and op.kind == "Resize"):
        coordinates = "asymmetric"
    if mode == "nearest":
        return _nearest(ctx, op, x, target, coordinates)
    return _interpolated(ctx, op, x, target, mode, coordinates)


def _target(op: Op, x: Traced) -> _Target:
    """Sizes and scales of the spatial dimensions. Raises: ModelError if batch or channels change."""
    if op.kind == "Upsample" or op.opset < 11:
        given, sizes = op.given(1), None
    else:
        given, sizes = op.given(2), op.given(3)
    axes = [axis % x.rank for axis in op.get("axes") or range(x.rank)]
    before = tuple(dict.fromkeys(tuple(meta.shape[2:]) for meta in x.metas))
    trials = [[tuple(meta.shape[2:]) for meta in x.metas].index(shape) for shape in before]
    if sizes is not None and not (isinstance(sizes, Const) and sizes.tensor.numel() == 0):
        if op.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise ModelError("keeps the aspect ratio, which is not supported")
        wanted = _spatial(list(entries_of(sizes).reshape(-1)), axes, [-1] * x.rank)
        if len(wanted) != x.rank - 2 or -1 in wanted:
            raise ModelError("resizes only some of the dimensions")
        at = [tuple(int(value_at(size, trial)) for size in wanted) for trial in trials]
        if len(before) == 1 and any(isinstance(size, Size) for size in wanted):
            raise ModelError("resizes to a size that depends on the batch size")
        return _Target(before, tuple(at), tuple(size if isinstance(size, Size) else int(size) for size in wanted), None)
    if given is None or not isinstance(given, Const):
        raise ModelError("resizes by a factor that is computed")
    told = [float(scale) for scale in given.tensor.reshape(-1)]
    factors = _spatial(told, axes if len(told) < x.rank else list(range(x.rank)), [1.0] * x.rank)
    return _by_factors(before, factors)


def _spatial(entries: list[Any], axes: list[int], whole: list[Any]) -> list[Any]:
    """Entries of the dimensions behind the channels. Raises: ModelError if a factor resizes batch or channels."""
    if len(entries) != len(axes):
        raise ModelError("resizes other dimensions than it has")
    for axis, entry in zip(axes, entries, strict=True):
        if axis < 2 and isinstance(entry, float) and entry != 1.0:
            raise ModelError("resizes the batch or the channels")
        whole[axis] = entry
    return whole[2:]


def _by_factors(before: tuple[tuple[int, ...], ...], factors: list[float]) -> _Target:
    """The sizes cut to whole ones. Corners are aligned to these, as in onnxruntime and torch: the reference that onnx's
    own tests are made with aligns them to what there was before the cut, and no runtime does."""
    # in float32, as runtimes do: 6 · float32(5/6) is 5 there, and a little less in higher precision
    after = tuple(
        tuple(int(np.floor(np.float32(a) * np.float32(f))) for a, f in zip(sizes, factors, strict=True))
        for sizes in before
    )
    return _Target(before, after, after[0] if len(before) == 1 else None, tuple(factors))


def _nearest(ctx: Emitter, op: Op, x: Traced, target: _Target, coordinates: str) -> Value:
    rounding = op.get(
        "nearest_mode", "floor" if coordinates == "asymmetric" and op.opset < 11 else "round_prefer_floor"
    )
    chosen: list[list[np.ndarray]] = []
    torchs: list[list[np.ndarray]] = []
    for trial, (before, after) in enumerate(zip(target.before, target.after, strict=True)):
        triples = list(zip(before, after, target.scales(trial), strict=True))
        chosen.append([_rounded(_coordinates(a, b, f, coordinates), a, rounding) for a, b, f in triples])
        torchs.append([np.minimum((np.arange(b) * (a / b)).astype(int), a - 1) for a, b, _ in triples])
    pairs = [pair for mine, its in zip(chosen, torchs, strict=True) for pair in zip(mine, its, strict=True)]
    if x.rank - 2 in _NEAREST and all(np.array_equal(a, b) for a, b in pairs):
        return ctx.call(_NEAREST[x.rank - 2], x, *_arguments(target))
    if target.is_open:
        raise ModelError("takes other positions than torch, and the size depends on the batch size")
    out: Any = x
    for i, positions in enumerate(chosen[0]):
        if not np.array_equal(positions, np.arange(x.static(2 + i))):
            out = _picked(ctx, op, out, 2 + i, positions, "positions")
    return out


def _arguments(target: _Target) -> tuple[list[Number] | None, list[float] | None]:
    """Sizes, or factors where the sizes follow from them: torch takes one of both."""
    return (None, list(target.factors or ())) if target.sizes is None else (list(target.sizes), None)


def _picked(ctx: Emitter, op: Op, x: Any, dim: int, positions: np.ndarray, name: str) -> Any:
    index = Const(from_numpy(positions.astype(np.int64)), f"{op.outputs[0]}.{name}")
    return ctx.call(aten.index_select.default, x, dim, index)


def _coordinates(before: int, after: int, scale: float, coordinates: str) -> np.ndarray:
    """The input position, no whole one, of every output position. Source: ONNX operator specification, Resize."""
    at = np.arange(after, dtype=np.float64)
    if coordinates in ("half_pixel", "pytorch_half_pixel"):
        at = (at + 0.5) / scale - 0.5
        if coordinates == "pytorch_half_pixel" and after == 1:
            at = np.zeros(1)
    elif coordinates == "half_pixel_symmetric":
        at = before / 2 * (1 - after / (scale * before)) + (at + 0.5) / scale - 0.5
    elif coordinates == "asymmetric":
        at = at / scale
    elif coordinates == "tf_half_pixel_for_nn":
        at = (at + 0.5) / scale
    elif coordinates == "align_corners":
        at = at * ((before - 1) / (after - 1)) if after > 1 else np.zeros(1)
    else:
        raise ModelError(f"its coordinates ({coordinates}) are not supported")
    return at


def _rounded(at: np.ndarray, before: int, rounding: str) -> np.ndarray:
    at = np.round(at, 6)
    rounded = {
        "round_prefer_floor": np.ceil(at - 0.5), "round_prefer_ceil": np.floor(at + 0.5), "floor": np.floor(at),
        "ceil": np.ceil(at),
    }  # fmt: skip
    if rounding not in rounded:
        raise ModelError(f"rounds to the nearest position by {rounding}, which is unknown")
    return np.clip(rounded[rounding], 0, before - 1).astype(np.int64)


def _interpolated(ctx: Emitter, op: Op, x: Traced, target: _Target, mode: str, coordinates: str) -> Value:
    n = x.rank - 2
    is_torchs = coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners")
    is_single = coordinates == "pytorch_half_pixel" and any(1 in after for after in target.after)
    if op.get("antialias", 0):
        raise ModelError(f"{mode} resizing with antialias is not what torch computes")
    if mode == "linear" and (not is_torchs or is_single or n not in _LINEAR):
        return _by_weights(ctx, op, x, target, coordinates)
    if not is_torchs or is_single:
        raise ModelError(f"{mode} resizing with the coordinates {coordinates} is not what torch computes")
    aligned = coordinates == "align_corners"
    exact = all(
        abs(b / a - scale) < 1e-6
        for trial, pair in enumerate(zip(target.before, target.after, strict=True))
        for a, b, scale in zip(*pair, target.scales(trial), strict=True)
    )
    by_sizes = target.sizes is not None and (exact or aligned)
    sizes, factors = _arguments(target) if by_sizes or not target.factors else (None, list(target.factors))
    if mode == "linear":
        return ctx.call(_LINEAR[n], x, sizes, aligned, factors)
    has_coefficients = abs(op.get("cubic_coeff_a", _TORCH_CUBIC) - _TORCH_CUBIC) < 1e-6
    if mode == "cubic" and n == 2 and has_coefficients and not op.get("exclude_outside", 0):
        return ctx.call(aten.upsample_bicubic2d.vec, x, sizes, aligned, factors)
    raise ModelError(f"{mode} resizing of {n} dimensions with these coefficients is not supported")


def _by_weights(ctx: Emitter, op: Op, x: Traced, target: _Target, coordinates: str) -> Value:
    """Linear with coordinates that torch does not have: both neighbours along each dimension, weighed."""
    if target.is_open:
        raise ModelError(f"resizes with the coordinates {coordinates}, and the size depends on the batch size")
    out: Any = x
    for i, (before, after, scale) in enumerate(zip(target.before[0], target.after[0], target.scales(0), strict=True)):
        at = np.clip(_coordinates(before, after, scale, coordinates), 0, before - 1)
        low = np.floor(at).astype(np.int64)
        if np.array_equal(at, np.arange(before)):
            continue
        share = from_numpy((at - low).reshape(-1, *[1] * (x.rank - 3 - i))).to(x.dtype)
        first = _picked(ctx, op, out, 2 + i, low, f"low{i}")
        second = _picked(ctx, op, out, 2 + i, np.minimum(low + 1, before - 1), f"high{i}")
        of_first, of_second = Const(1 - share, f"{op.outputs[0]}.near{i}"), Const(share, f"{op.outputs[0]}.far{i}")
        parts = ctx.call(aten.mul.Tensor, first, of_first), ctx.call(aten.mul.Tensor, second, of_second)
        out = ctx.call(aten.add.Tensor, *parts)
    return out


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
