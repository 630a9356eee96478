"""Optimizers from a recipe and the L1 term; it must never hold a training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.asking.recipe import Recipe
from compressor.errors import TrainingError
from compressor.training.spread import held, is_spread

_torch: Any = torch  # its functions on lists of tensors have no public names

_FUSED_DEVICES = {"cpu", "cuda", "mps"}


def build_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over what is not frozen; only tensors with 2 or more dimensions decay.

    Raises:  TrainingError if every parameter is frozen.
    Source:  Kingma & Ba 2015 (adam), Loshchilov & Hutter 2019 (adamw); betas and eps are torch's.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise TrainingError("every parameter is frozen: there is nothing to train; unfreeze at least one")
    groups: list[dict[str, Any]] = [
        {"params": matrices(trained), "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One kernel for all tensors: a LeNet step spends more time in a per-tensor loop than in its arithmetic.
    fused = all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in trained)
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        fused = fused and not any(map(is_spread, trained))  # torch has the kernel for whole tensors only
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, fused=fused)


def matrices(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Those with 2 or more dimensions: weights, neither biases nor normalisation."""
    return [parameter for parameter in parameters if parameter.dim() >= 2]


@torch.no_grad()
def add_l1_gradient(weights: Sequence[Tensor], l1: float) -> None:
    """Adds l1 · sign(w) to every gradient that is there: the subgradient of l1 · Σ|w|, 0 at 0."""
    reached = [weight for weight in weights if weight.grad is not None]
    if l1 and reached:
        gradients = [held(weight.grad) for weight in reached if weight.grad is not None]
        signs = _torch._foreach_sign([held(weight) for weight in reached])
        _torch._foreach_add_(gradients, signs, alpha=l1)
