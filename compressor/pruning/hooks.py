"""What pruning does inside the training loop: holding masks, and the ADMM gradient; it must never run the loop.

ADMM (Zhang et al. 2018, arXiv 1807.11091, eq. 4-9): minimise f(W) + Σ ρ/2 ‖W − Z + U‖² subject to Z in S, by
    W-step  mini-batches with the extra gradient ρ(W − Z + U)
    Z-step  Z = the nearest point of S to W + U
    U-step  U = U + W − Z
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.pruning.settings import Admm
from compressor.sparsity import Selection, Selector
from compressor.training import BaseHook


class MaskHook(BaseHook):
    """Keeps cut weights at 0: their gradients, so that no momentum builds up, and the weights after every update."""

    def __init__(self, module: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        self._weights: list[Tensor] = [parameters[name] for name in masks]
        self._factors = [mask.to(parameters[name]) for name, mask in masks.items()]

    def on_gradients(self) -> None:
        pairs = [(w.grad, f) for w, f in zip(self._weights, self._factors, strict=True) if w.grad is not None]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [factor for _, factor in pairs])

    @torch.no_grad()
    def on_update(self) -> None:
        if self._weights:
            torch._foreach_mul_(self._weights, self._factors)


class AdmmHook(BaseHook):
    """The ADMM stage: the penalty's gradient at every step, Z and U at every `update_epochs` epochs.

    `pull` = Z − U is kept once per update, so that a step costs two fused additions and no autograd. Z starts as the
    projection of W with U = 0 (a Z that starts as W would leave the first epochs without any pull).
    """

    def __init__(self, module: nn.Module, selector: Selector, ratio: float, settings: Admm) -> None:
        self._selector, self._ratio, self._settings = selector, ratio, settings
        parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        selection = selector.select(parameters, ratio)
        self._names: Sequence[str] = [name for name in selection.masks if name in parameters]
        self._parameters = parameters
        self._rho = settings.rho
        self._residual = float("inf")
        self._u: dict[str, Tensor] = {}
        self._z: dict[str, Tensor] = {}
        self._adopt(selection, {name: p.detach() for name, p in parameters.items()})

    @property
    def residual(self) -> float:
        """‖W − Z‖ / ‖W‖ over all constrained tensors, as of the last update."""
        return self._residual

    def on_gradients(self) -> None:
        gradients = [p.grad for p in self._pulled if p.grad is not None]
        if len(gradients) != len(self._pulled):
            return
        torch._foreach_add_(gradients, self._pulled, alpha=self._rho)
        torch._foreach_add_(gradients, self._pull, alpha=-self._rho)

    @torch.no_grad()
    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        if epoch % self._settings.update_epochs:
            return {"residual": self._residual, "rho": self._rho}
        weights = {name: p.detach() for name, p in self._parameters.items()}
        lifted = {name: w + self._u[name] if name in self._u else w for name, w in weights.items()}
        self._adopt(self._selector.select(lifted, self._ratio), lifted)
        for name, z in self._z.items():
            self._u[name] = lifted[name] - z
        self._set_pull()
        self._residual = self._measure(weights)
        used = self._rho
        self._rho = min(self._rho * self._settings.rho_growth, self._settings.rho_max)
        return {"residual": self._residual, "rho": used}

    def finished(self) -> bool:
        return self._residual < self._settings.residual

    def state_dict(self) -> dict[str, Any]:
        return {"z": self._z, "u": self._u, "rho": self._rho, "residual": self._residual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        to = {name: p.device for name, p in self._parameters.items()}
        self._z = {name: z.to(to[name]) for name, z in state["z"].items()}
        self._u = {name: u.to(to[name]) for name, u in state["u"].items()}
        self._rho, self._residual = state["rho"], state["residual"]
        self._set_pull()

    def _adopt(self, selection: Selection, lifted: Mapping[str, Tensor]) -> None:
        """Z = the projection of `lifted`; a tensor that is whole this time stays constrained if it was before."""
        names = dict.fromkeys([*self._z, *(name for name in selection.masks if name in self._parameters)])
        for name in names:
            mask = selection.masks.get(name)
            z = lifted[name].clone()
            self._z[name] = z if mask is None else z.masked_fill_(~mask.to(z.device), 0.0)
            self._u.setdefault(name, torch.zeros_like(z))
        self._set_pull()

    def _set_pull(self) -> None:
        names = list(self._z)
        self._pulled: list[Tensor] = [self._parameters[name] for name in names]
        self._pull = [self._z[name] - self._u[name] for name in names]

    def _measure(self, weights: Mapping[str, Tensor]) -> float:
        away = sum(float((weights[name] - z).square().sum()) for name, z in self._z.items())
        size = sum(float(weights[name].square().sum()) for name in self._z)
        return (away / size) ** 0.5 if size else 0.0
