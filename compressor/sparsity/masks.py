"""Masks of units and units of masks; it must never hold scores or decide what to cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from compressor.axes import Keep, UnitMap
from compressor.program.masks import Positions, held
from compressor.typed_torch import from_numpy


def mask_units(module: nn.Module, units: UnitMap, keep: Keep) -> Mapping[str, Tensor]:
    """Masks that cut every slice of the units that go; only parameters that lose something get one.

    Shapes:  keep (n_units,) -> each mask in its parameter's shape
    """
    found: dict[str, Positions] = {}
    for name, parameter in module.named_parameters():
        along = {dim: units.kept_along(keep, name, dim) for dim in range(parameter.dim())}
        lost = {dim: from_numpy(np.asarray(kept)) for dim, kept in along.items() if not kept.all()}
        if lost:
            found[name] = Positions(tuple(parameter.shape), lost)
    return held(found)


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
