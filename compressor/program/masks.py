"""Masks held against the weights they cut: set to 0, or found not to be; it must never decide what is cut."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.errors import ModelError

_N_SHOWN = 3


@torch.no_grad()
def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every cut weight to 0, in place."""
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


@torch.no_grad()
def refuse_broken_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Nothing, when every weight that a mask cuts is 0.

    Raises:  ModelError with how many are not, where, and what to do.
    """
    parameters = dict(module.named_parameters())
    broken: dict[str, int] = {}
    for name, mask in masks.items():
        alive = (parameters[name] != 0) & ~mask.to(parameters[name].device)
        if n := int(alive.sum()):
            broken[name] = n
    if broken:
        worst = sorted(broken, key=lambda name: -broken[name])
        listed = ", ".join(f"{name} {broken[name]:,}" for name in worst[:_N_SHOWN])
        more = " …" if len(worst) > _N_SHOWN else ""
        raise ModelError(
            f"{sum(broken.values()):,} weights that the masks cut are not 0 ({listed}{more}): trained without them\n"
            f"call program.apply_masks(), in a training loop of your own after every step of the optimizer"
        )
