"""Masks: what is cut, as one bool tensor per parameter; it must never hold scores or decide what to cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compressor.axes import Keep, UnitMap
from compressor.typed_torch import from_numpy


def mask_units(module: nn.Module, units: UnitMap, keep: Keep) -> dict[str, Tensor]:
    """Masks that cut every slice of the units that go; only parameters that lose something get one.

    Shapes:  keep (n_units,) -> each mask in its parameter's shape
    """
    masks: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        mask = torch.ones(parameter.shape, dtype=torch.bool)
        for dim in range(parameter.dim()):
            kept = units.kept_along(keep, name, dim)
            if not kept.all():
                shape = [-1 if d == dim else 1 for d in range(parameter.dim())]
                mask &= from_numpy(kept).reshape(shape)
        if not mask.all():
            masks[name] = mask
    return masks


def merge_masks(*parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that cut whatever one of the parts cuts."""
    merged: dict[str, Tensor] = {}
    for part in parts:
        for name, mask in part.items():
            merged[name] = merged[name] & mask if name in merged else mask.clone()
    return merged


def kept_units(units: UnitMap, masks: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Keep:
    """Which units the masks leave: one goes when they cut every element of every slice that it has.

    Shapes:  -> (n_units,)
    """
    cut = np.ones(units.n_units, dtype=bool)
    for (name, dim), of_index in units.axes.items():
        if name not in parameters or not (of_index >= 0).any():
            continue
        mask = masks.get(name)
        if mask is None:
            alive = np.ones(len(of_index), dtype=bool)
        else:
            others = [d for d in range(mask.dim()) if d != dim]
            alive = (mask.any(dim=others) if others else mask).cpu().numpy()
        cut[of_index[alive & (of_index >= 0)]] = False
    return ~cut
