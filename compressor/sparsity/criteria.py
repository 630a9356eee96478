"""Criteria: what a weight or a filter is worth, one pure function each; it must never hold masks, budgets or data.

Whatever chooses (`select_units`, `select_weights` …) ranks by squared magnitude. A criterion therefore answers with
tensors in the weights' shapes whose *squares* are its scores, and every pattern works with every criterion that scores
single weights. `l2` answers with the weights themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compressor.asking.score import CRITERIA, NEEDS_GRADIENTS, NEEDS_INPUTS
from compressor.axes import UnitMap
from compressor.errors import PatternError, UsageError
from compressor.program import CONTRACTIONS, Layer

PER_SAMPLE = frozenset({"fisher"})
"""Criteria that take gradients of single samples: the square of a batch's mean gradient is not the mean of squares."""


class Moments(NamedTuple):
    """Mean |g| and mean g² of one parameter's gradient over calibration batches or samples, in its shape."""

    absolute: Tensor
    square: Tensor


def l1(weight: Tensor) -> Tensor:
    """|w| of each weight. Shapes: as the weight. Source: Li et al. 2017, "Pruning Filters", sec. 3.1."""
    return weight.detach().abs()


def l2(weight: Tensor) -> Tensor:
    """w² of each weight. Shapes: as the weight. Source: Han et al. 2015, sec. 3 (ranks by |w|: the same order)."""
    return weight.detach().square()


def taylor(weight: Tensor, moments: Moments) -> Tensor:
    """Mean |w · g| of each weight: how much the loss moves, to first order, when the weight becomes 0.

    Shapes:  weight (...), moments the same -> (...)
    Units:   those of the loss; comparable between layers before anything is normalised.
    Source:  Molchanov et al. 2017, "Pruning CNNs for Resource Efficient Inference", eq. 8, per weight instead of per
             feature map and without the sum inside the absolute value, so that no two weights cancel.
    """
    return weight.detach().abs() * moments.absolute


def fisher(weight: Tensor, moments: Moments) -> Tensor:
    """w² · mean g² / 2 of each weight: the second-order rise of the loss, with the empirical Fisher as its curvature.

    Shapes:  weight (...), moments the same -> (...)
    Source:  LeCun et al. 1990, "Optimal Brain Damage", eq. 5; the Fisher diagonal instead of the Hessian's: Theis et
             al. 2018, "Faster gaze prediction", eq. 8. `moments` have to be those of single samples.
    """
    return weight.detach().square() * moments.square / 2


def activation(weight: Tensor, energy: Tensor) -> Tensor:
    """w² · Σ x² of each weight: what the squared output of its layer loses, were its inputs independent.

    Shapes:  weight (...), energy any that broadcasts with it -> (...)
    Source:  Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models" (Wanda), eq. 1,
             squared; `energy` is that of its input.
    """
    return weight.detach().to(torch.float32).square() * energy.to(weight.device, torch.float32)


def fpgm(weight: Tensor, out_dim: int) -> Tensor:
    """Summed distance of each filter to all others of its layer: a filter near the geometric median can be replaced.

    Shapes:  weight (...) with O filters along `out_dim` -> (O,)
    Source:  He et al. 2019, "Filter Pruning via Geometric Median", eq. 7.
    """
    rows_OK = weight.detach().to(torch.float64).movedim(out_dim, 0).flatten(1)
    return torch.cdist(rows_OK, rows_OK, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)


def bn(scale: Tensor) -> Tensor:
    """|γ| of each channel. Shapes: (C,) -> (C,). Source: Liu et al. 2017, "Network Slimming", sec. 3."""
    return scale.detach().abs()


def rate(
    criterion: str,
    tensors: Mapping[str, Tensor],
    layers: Sequence[Layer],
    units: UnitMap,
    moments: Mapping[str, Moments] | None = None,
    energies: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Tensors whose squares are the criterion's scores, by the parameters' names; those without a say are left out.

    Raises:  UsageError for an unknown criterion, or one that needs gradients or inputs without them;
             PatternError for `bn` in a network without batch norm.
    """
    if criterion == "l2":
        return dict(tensors)
    if criterion == "l1":
        return {name: l1(tensor).sqrt() for name, tensor in tensors.items()}
    if criterion in NEEDS_GRADIENTS:
        if moments is None:
            raise UsageError(f"--score {criterion}: needs gradients, and so training data; give --data")
        score = taylor if criterion == "taylor" else fisher
        # What is frozen has no gradient; it keeps its weights as a score rather than none, which would cut it first.
        return {name: score(t, moments[name]).sqrt() if name in moments else t for name, t in tensors.items()}
    if criterion in NEEDS_INPUTS:
        if energies is None:
            raise UsageError(f"--score {criterion}: needs what reaches each weight, and so training data; give --data")
        # What has no input (a bias, a norm) keeps its own size, for the same reason.
        return {
            name: _narrow(activation(t, energies[name]).sqrt_(), t.dtype) if name in energies else t
            for name, t in tensors.items()
        }
    if criterion == "fpgm":
        return _spread_distances(tensors, layers)
    if criterion == "bn":
        return _batch_norm_scales(tensors, layers, units)
    raise UsageError(f"--score {criterion}: choose one of {', '.join(CRITERIA)}")


def _narrow(score: Tensor, dtype: torch.dtype) -> Tensor:
    """In the weights' type, which takes as little room, unless that has too few exponents for what inputs are."""
    return score if dtype is torch.float16 else score.to(dtype)


def _spread_distances(tensors: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Every filter's distance spread evenly over its weights, so that their sum is the distance."""
    rated: dict[str, Tensor] = {}
    for layer in layers:
        weight = tensors.get(layer.weight)
        if weight is None or layer.kind not in CONTRACTIONS:
            continue
        n_filters = weight.shape[layer.out_dim]
        each = fpgm(weight, layer.out_dim) / (weight.numel() / n_filters)
        shape = [n_filters if dim == layer.out_dim else 1 for dim in range(weight.dim())]
        rated[layer.weight] = each.sqrt().to(weight.dtype).reshape(shape).expand(weight.shape)
    return rated


def _batch_norm_scales(
    tensors: Mapping[str, Tensor], layers: Sequence[Layer], units: UnitMap
) -> dict[str, Tensor]:  # fmt: skip
    """γ of every batch norm; filters that none follows (fully connected layers) keep their own weights as a score."""
    scales = {layer.weight for layer in layers if layer.kind == "batch_norm"} & set(tensors)
    if not scales:
        raise PatternError("--score bn: there is no batch norm with a scale; use l1, l2, taylor, fisher or fpgm")
    covered = {int(unit) for name in scales for unit in units.axes[name, 0]}
    rated = {name: bn(tensors[name]).sqrt() for name in scales}
    for layer in layers:
        own = units.axes.get((layer.weight, layer.out_dim))
        if layer.kind not in CONTRACTIONS or own is None or layer.weight not in tensors:
            continue
        if any(int(unit) >= 0 and int(unit) not in covered for unit in own):
            rated[layer.weight] = tensors[layer.weight].detach()
    return rated
