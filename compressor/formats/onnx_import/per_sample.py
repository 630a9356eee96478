"""Operators that treat every sample alike, so that a run at one batch size tells their shapes at all others.

It must never hold an operator that can look along dimension 0: those are run at every trial batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compressor.formats.onnx_import.values import Size, Traced

aten = torch.ops.aten

_ALONG_OTHERS = frozenset(
    {
        aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv_transpose1d.default,
        aten.conv_transpose2d.input, aten.conv_transpose3d.input, aten.batch_norm.default, aten.group_norm.default,
        aten.instance_norm.default, aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
        aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default, aten.adaptive_avg_pool1d.default,
        aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
    }
)  # fmt: skip
"""They have samples along dimension 0 of their first operand, and the others are weights."""


def derived(target: Any, arguments: Any, first: Any, batches: Sequence[int], trial: int) -> Tensor | None:
    """The result at a trial from that at the first one; None where the operator has to be run to know it.

    Shapes:  first (batches[0], ...) -> (batches[trial], ...)
    """
    if not isinstance(first, Tensor) or not first.dim() or first.shape[0] != batches[0]:
        return None
    leaves = tree_leaves(arguments)
    operands = [leaf for leaf in leaves if isinstance(leaf, Traced)]
    if any(isinstance(leaf, Size) for leaf in leaves):
        return None
    if target in _ALONG_OTHERS:
        fits = _is_led_by_samples(operands[0], batches) and all(_is_fixed(other) for other in operands[1:])
    else:
        is_pointwise = torch.Tag.pointwise in getattr(target, "tags", ())
        fits = is_pointwise and all(_fits_beside(operand, first.dim(), batches) for operand in operands)
    return first.new_empty((batches[trial], *first.shape[1:])) if fits else None


def _is_led_by_samples(value: Traced, batches: Sequence[int]) -> bool:
    """Whether dimension 0 is the batch and no other depends on it."""
    if not value.rank or value.at(0) != tuple(batches):
        return False
    return all(len(set(value.at(dim))) == 1 for dim in range(1, value.rank))


def _is_fixed(value: Traced) -> bool:
    return all(len(set(value.at(dim))) == 1 for dim in range(value.rank))


def _fits_beside(value: Traced, rank: int, batches: Sequence[int]) -> bool:
    """Whether an operand of a result of that rank is led by samples too, or is the same for all of them."""
    if _is_fixed(value):
        return value.rank < rank or set(value.at(0)) == {1}
    return value.rank == rank and _is_led_by_samples(value, batches)
