"""Rows of weights that fit outputs best, from normal equations alone; it must never know layers, masks or data.

Everything is asked of a Gram matrix XᵀX and of XᵀY, which have the size of a layer, however many samples made them.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_MOST_EXACT = 1 << 24
"""Supports times the square of the columns, up to which each support has a factorisation: half a second."""
_CG_STEPS = 40
_CG_CLOSE = 1e-5
"""Residual at which conjugate gradients end, relative to the right side of a row."""
_TINY = float(torch.finfo(torch.float32).tiny)

_ADMM_STEPS = 15
_ADMM_RHOS = (0.3, 1.0)
"""Of a Gram matrix whose diagonal is 1, in turn for `_ADMM_STEPS` each: a small one looks further, a larger settles.

Layers with correlated inputs, cut 2x to 10x and to 2:4, have 0.68 of the error that the better of |w| and |w| ‖x‖
leaves. By 0.3 alone it is 0.72, and above 1 for some; by 1 alone 0.74. Twice the steps change nothing.
"""


class Support(Protocol):
    """What a pattern lets stay of a layer's weights, where it may choose."""

    def __call__(self, magnitudes_OK: Tensor, share: float) -> Tensor:
        """Which weights stay, True = keep, by their magnitudes, once a `share` of what is to go is gone.

        Shapes:  (O, K) -> (O, K) bool
        """
        ...


def ridge_rows(gram_KK: Tensor, cross_KO: Tensor, start_OK: Tensor, free_OK: Tensor, ridge: float) -> Tensor:
    """Rows w that minimise ‖Xw − y‖² + λ‖w − start‖² over their free entries; what is not free stays.

    Rows that share what is free share a factorisation. Where that would be too many of them (every row of an
    unstructured mask has its own), all rows are solved together by conjugate gradients.

    Shapes:  gram XᵀX (K, K), cross XᵀY (K, O), start and free (O, K) -> (O, K)
    Units:   `ridge` is λ as a share of the mean of the gram's diagonal.
    """
    supports, which_O = torch.unique(free_OK, dim=0, return_inverse=True)
    if len(supports) > 1 and len(supports) * gram_KK.numel() > _MOST_EXACT:
        return conjugate_rows(gram_KK, cross_KO, start_OK, free_OK, ridge)
    solved = start_OK.clone()
    for number, support in enumerate(supports):
        if not support.any():
            continue
        rows = which_O == number
        block = gram_KK[support][:, support]
        strength = ridge * block.diagonal().mean().clamp_min(_TINY)
        fixed = gram_KK[support][:, ~support] @ start_OK[rows][:, ~support].T
        start = start_OK[rows][:, support].T
        right = cross_KO[support][:, rows] - fixed + strength * start
        left = block + strength * torch.eye(len(block), dtype=block.dtype, device=block.device)
        answer = torch.cholesky_solve(right, torch.linalg.cholesky(left))
        solved[rows.nonzero(), support.nonzero()[:, 0]] = answer.T
    return solved


def conjugate_rows(gram_KK: Tensor, cross_KO: Tensor, start_OK: Tensor, free_OK: Tensor, ridge: float) -> Tensor:
    """The same by conjugate gradients from `start`, one product with the gram for all rows in each step.

    Source:  Meng et al. 2024, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning", alg. 2; there without
             a ridge.
    """
    free = free_OK.to(gram_KK.dtype)
    diagonal_K = gram_KK.diagonal()
    mean_O = (free @ diagonal_K) / free.sum(1).clamp_min(1)
    strength_O1 = (ridge * mean_O.clamp_min(_TINY))[:, None]
    scale_OK = free / (diagonal_K + strength_O1)
    solved = start_OK.clone()
    # The ridge pulls towards the start, so that at the start it adds nothing.
    residual = free * (cross_KO.T - solved @ gram_KK)
    close_O = _CG_CLOSE**2 * (free * cross_KO.T).square().sum(1)
    direction = scale_OK * residual
    energy_O = (residual * direction).sum(1)
    for _ in range(_CG_STEPS):
        if bool((residual.square().sum(1) <= close_O).all()):
            break
        moved = free * (direction @ gram_KK + strength_O1 * direction)
        step_O1 = (energy_O / (direction * moved).sum(1).clamp_min(_TINY))[:, None]
        solved += step_O1 * direction
        residual -= step_O1 * moved
        scaled = scale_OK * residual
        after_O = (residual * scaled).sum(1)
        direction = scaled + (after_O / energy_O.clamp_min(_TINY))[:, None] * direction
        energy_O = after_O
    return solved


def admm_support(
    gram_GKK: Tensor, cross_GKO: Tensor, start_OK: Tensor, support: Support, *, ridge: float
) -> Tensor:  # fmt: skip
    """What a layer keeps of its weights so that ‖XW − Y‖² is small, by ADMM between that and the pattern.

    W solves the layer's own least squares with a pull towards Z − U, by one factorisation for many steps and all
    filters; Z is W + U as far as the pattern keeps it, more of it going from step to step; U sums up what they differ
    by. Columns are scaled to the same energy, so that the pattern cuts what is least of |w| ‖x‖.

    Shapes:  gram (G, K, K), cross (G, K, O / G) of each group, start (O, K) -> (O, K) bool
    Source:  Boža 2024, "Fast and Effective Weight Update for Pruned Large Language Models", alg. 1 and sec. 3.4
             (sparsity in steps, cubic); Boyd et al. 2011, "Distributed Optimization … via ADMM", sec. 3.1, and 3.4.1
             for U as ρ changes.
    """
    n_groups, n_columns, _ = gram_GKK.shape
    scale_GK = gram_GKK.diagonal(dim1=1, dim2=2).clamp_min(_TINY).sqrt()
    unit = torch.eye(n_columns, dtype=gram_GKK.dtype, device=gram_GKK.device)
    scaled = gram_GKK / (scale_GK[:, :, None] * scale_GK[:, None, :])
    z = start_OK.unflatten(0, (n_groups, -1)) * scale_GK[:, None, :]  # (G, O / G, K)
    wanted = (cross_GKO / scale_GK[:, :, None]).mT + ridge * z
    u, before = torch.zeros_like(z), _ADMM_RHOS[0]
    keep = torch.ones_like(start_OK, dtype=torch.bool)
    for rho in _ADMM_RHOS:
        factor = torch.linalg.cholesky(scaled + (ridge + rho) * unit)
        u, before = u * (before / rho), rho
        for step in range(1, _ADMM_STEPS + 1):
            w = torch.cholesky_solve((wanted + rho * (z - u)).mT, factor).mT
            left = 1 - step / _ADMM_STEPS if rho == _ADMM_RHOS[0] else 0.0
            keep = support((w + u).flatten(0, 1).abs(), 1 - left**3)
            z = torch.where(keep.unflatten(0, (n_groups, -1)), w + u, 0)
            u = u + w - z
    return keep
