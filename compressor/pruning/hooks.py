"""Masks inside the training loop: what is cut stays cut; it must never run the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from compressor.training import BaseHook, held, own_part


class Parameters(Protocol):
    """What a hook sees of a model: its parameters by name."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


class MaskHook(BaseHook):
    """Keeps cut weights at 0: their gradients, so that no momentum builds up, and the weights after every update.

    It tells the `sparsity`, cut ÷ all parameters of the module, of every epoch where anything is cut.
    """

    def __init__(self, module: Parameters, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        self._weights: list[Tensor] = [parameters[name] for name in masks]
        self._factors = [own_part(mask.to(held(parameters[name])), parameters[name]) for name, mask in masks.items()]
        n_cut = sum(int(mask.numel() - mask.sum()) for mask in masks.values())
        self._told = {"sparsity": n_cut / n_parameters(module)} if n_cut else {}

    def on_gradients(self) -> None:
        pairs = [(held(w.grad), f) for w, f in zip(self._weights, self._factors, strict=True) if w.grad is not None]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [factor for _, factor in pairs])

    @torch.no_grad()
    def on_update(self) -> None:
        if self._weights:
            torch._foreach_mul_([held(weight) for weight in self._weights], self._factors)

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        return self._told


def n_parameters(module: Parameters) -> int:
    """Parameters of a module, at least 1 so that shares of them are numbers."""
    return max(sum(parameter.numel() for parameter in module.parameters()), 1)
