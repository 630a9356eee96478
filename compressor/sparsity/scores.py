"""Scores: one pure function per criterion, a larger score is kept; it must never hold budgets or masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.axes import UnitMap

Scores: TypeAlias = NDArray[np.float64]

SliceChoice: TypeAlias = Callable[[str, int], bool]
"""Whether the slices of (parameter, dimension) count towards a unit's score."""


def score_units(
    units: UnitMap,
    tensors: Mapping[str, Tensor],
    counts: SliceChoice,
    masks: Mapping[str, Tensor] | None = None,
    order: int = 2,
) -> Scores:
    """Mean magnitude of each unit over all its slices, each tensor scaled to mean 1 before.

    Scaling makes layers comparable: raw magnitudes differ by the fan-in of the layer, and a global ranking on them
    would empty the layers with many small weights first. What `masks` cut is no part of any mean, so that the scores of
    a masked network are those of the compacted one.

    Shapes:  -> (n_units,)
    Units:   multiples of the mean |w|^order of each tensor; comparable between layers.
    Source:  group magnitude of coupled slices (Fang et al. 2023, "DepGraph", sec. 3.3), normalised per tensor instead
             of per group.
    """
    total, n_elements = np.zeros(units.n_units), np.zeros(units.n_units)
    energy, energy_of, mean = torch.zeros(0), "", 1.0
    alive: Tensor | None = None
    masks = masks or {}
    for (name, dim), of_index in units.axes.items():
        tensor, used = tensors.get(name), of_index >= 0
        if tensor is None or not used.any() or not counts(name, dim):
            continue
        if energy_of != name:  # the axes of a tensor come one after another
            energy = tensor.detach().to(torch.float64, copy=True).abs_().pow_(order)
            alive = masks[name].to(energy.device) if name in masks else None
            if alive is not None:
                energy.mul_(alive)
            n_alive = tensor.numel() if alive is None else int(alive.sum())
            energy_of, mean = name, float(energy.sum()) / max(n_alive, 1) or 1.0
        along = _along(energy, dim) / mean
        np.add.at(total, of_index[used], along[used])
        n_along = tensor.numel() / tensor.shape[dim] if alive is None else _along(alive, dim)[used]
        np.add.at(n_elements, of_index[used], n_along)
    return total / np.maximum(n_elements, 1.0)


def _along(tensor: Tensor, dim: int) -> NDArray[np.float64]:
    """Sums over all other dimensions. Shapes: (..., n, ...) -> (n,)"""
    others = [d for d in range(tensor.dim()) if d != dim]
    return (tensor.sum(dim=others) if others else tensor).cpu().numpy().astype(np.float64)


def normalise_lamp(squares: Scores) -> Scores:
    """Each score divided by the sum of all that are not smaller: how much of the layer's energy hangs on it.

    Shapes:  (n,) -> (n,)
    Source:  Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning" (LAMP), eq. 3.
    """
    order = np.argsort(squares, kind="stable")
    ordered = squares[order]
    remaining = np.cumsum(ordered[::-1])[::-1]
    lamp = np.empty_like(squares)
    lamp[order] = ordered / np.maximum(remaining, np.finfo(np.float64).tiny)
    return lamp


def random_scores(n: int, seed: int) -> Scores:
    """Uniform noise: the control that every criterion has to beat. Shapes: -> (n,)"""
    return np.random.default_rng(seed).random(n)
