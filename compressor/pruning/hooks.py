"""What pruning does inside the training loop: holding masks, and the ADMM gradient; it must never run the loop.

ADMM (Zhang et al. 2018, arXiv 1807.11091, eq. 4-9): minimise f(W) + Σ ρ/2 ‖W − Z + U‖² subject to Z in S, by
    W-step  mini-batches with the extra gradient ρ(W − Z + U)
    Z-step  Z = the nearest point of S to W + U
    U-step  U = U + W − Z
and when ρ grows, U shrinks by the same factor: it is the dual variable divided by ρ (Boyd et al. 2011, "Distributed
Optimization", sec. 3.4.1), which the paper's constant ρ leaves open. Measured on LeNet-300-100 at 20x by units, 4,000
digits, three seeds: the residual before the hard prune is 0.05 with it and 0.34 without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.asking import Admm
from compressor.sparsity import Selector
from compressor.training import BaseHook


class MaskHook(BaseHook):
    """Keeps cut weights at 0: their gradients, so that no momentum builds up, and the weights after every update.

    It tells the `sparsity`, cut ÷ all parameters of the module, of every epoch where anything is cut.
    """

    def __init__(self, module: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        self._weights: list[Tensor] = [parameters[name] for name in masks]
        self._factors = [mask.to(parameters[name]) for name, mask in masks.items()]
        n_cut = sum(int(mask.numel() - mask.sum()) for mask in masks.values())
        self._told = {"sparsity": n_cut / _n_parameters(module)} if n_cut else {}

    def on_gradients(self) -> None:
        pairs = [(w.grad, f) for w, f in zip(self._weights, self._factors, strict=True) if w.grad is not None]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [factor for _, factor in pairs])

    @torch.no_grad()
    def on_update(self) -> None:
        if self._weights:
            torch._foreach_mul_(self._weights, self._factors)

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        return self._told


@dataclass(frozen=True)
class Penalties:
    """The course of ρ: the first one, its growth from update to update, its limit, and factors of single tensors."""

    first: float
    growth: float
    limit: float
    factors: Mapping[str, float] = field(default_factory=dict)

    def after(self, rho: float) -> float:
        return min(rho * self.growth, self.limit)


class AdmmHook(BaseHook):
    """The ADMM stage: the penalty's gradient at every step, new Z and U `updates` times in its `n_steps`.

    `pull` = Z − U is kept once per update, so that a step costs two fused additions and no autograd. Z starts as the
    projection of W with U = 0 (a Z that starts as W would leave the first epochs without any pull). What `masks` cut
    already stays cut in Z. Tensors with a factor of their own are added in a pair of additions of their own. The
    `sparsity` that it tells is Z's: the share of the module's parameters that the hard prune would cut now.
    """

    def __init__(
        self,
        module: nn.Module,
        selector: Selector,
        ratio: float,
        settings: Admm,
        n_steps: int,
        penalties: Penalties | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._selector, self._ratio, self._settings, self._masks = selector, ratio, settings, dict(masks or {})
        self._penalties = penalties or Penalties(settings.rho, *settings.course(n_steps=n_steps))
        self._n_steps, self._step = n_steps, 0
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._rho = self._used_rho = self._penalties.first
        self._n_parameters = _n_parameters(module)
        self._u: dict[str, Tensor] = {}
        self._z: dict[str, Tensor] = {}
        weights = {name: p.detach() for name, p in self._parameters.items()}
        self._project(weights)
        self._u = {name: torch.zeros_like(z) for name, z in self._z.items()}
        self._residual = self._measure(weights)
        self._set_pull()

    @property
    def residual(self) -> float:
        """‖W − Z‖ / ‖W‖ over all constrained tensors, as of the last update, or of the start before the first."""
        return self._residual

    def on_gradients(self) -> None:
        for factor, weights, pull in self._groups:
            gradients = [w.grad for w in weights if w.grad is not None]
            if len(gradients) == len(weights):
                torch._foreach_add_(gradients, weights, alpha=self._rho * factor)
                torch._foreach_add_(gradients, pull, alpha=-self._rho * factor)

    def on_update(self) -> None:
        n_due = [step * self._settings.updates // self._n_steps for step in (self._step, self._step + 1)]
        self._step += 1
        if n_due[1] > n_due[0]:
            self.renew()

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        return {"sparsity": self._sparsity(), "residual": self._residual, "rho": self._used_rho}

    @torch.no_grad()
    def renew(self) -> None:
        """The Z-step, the U-step and the next penalty."""
        weights = {name: p.detach() for name, p in self._parameters.items()}
        names = list(self._u)
        lifted = dict(weights)
        lifted |= zip(names, torch._foreach_add([weights[n] for n in names], [self._u[n] for n in names]), strict=True)
        self._project(lifted)
        names = list(self._z)
        away = torch._foreach_sub([lifted[name] for name in names], [self._z[name] for name in names])
        self._residual = self._measure(weights)
        self._used_rho, self._rho = self._rho, self._penalties.after(self._rho)
        if self._rho != self._used_rho:
            torch._foreach_mul_(away, self._used_rho / self._rho)
        self._u = dict(zip(names, away, strict=True))
        self._set_pull()

    def finished(self) -> bool:
        return self._residual < self._settings.residual

    def state_dict(self) -> dict[str, Any]:
        return {
            "z": self._z, "u": self._u, "rho": self._rho, "used_rho": self._used_rho, "residual": self._residual,
            "step": self._step,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        to = {name: p.device for name, p in self._parameters.items()}
        self._z = {name: z.to(to[name]) for name, z in state["z"].items()}
        self._u = {name: u.to(to[name]) for name, u in state["u"].items()}
        self._rho, self._used_rho, self._residual = state["rho"], state["used_rho"], state["residual"]
        self._step = state["step"]
        self._set_pull()

    def _project(self, lifted: Mapping[str, Tensor]) -> None:
        """Z = the projection of `lifted`; a tensor that is whole this time stays constrained if it was before."""
        chosen = self._selector.select(lifted, self._ratio, self._masks).masks
        for name in dict.fromkeys([*self._z, *(name for name in chosen if name in self._parameters)]):
            mask, z = chosen.get(name), lifted[name]
            # A product would turn what is infinite into NaN; torch.where costs the same.
            self._z[name] = z.clone() if mask is None else torch.where(mask.to(z.device), z, 0.0)

    def _set_pull(self) -> None:
        by_factor: dict[float, list[str]] = {}
        for name in self._z:
            by_factor.setdefault(self._penalties.factors.get(name, 1.0), []).append(name)
        self._groups: list[tuple[float, list[Tensor], list[Tensor]]] = []
        for factor, names in by_factor.items():
            pull = torch._foreach_sub([self._z[n] for n in names], [self._u[n] for n in names])
            self._groups.append((factor, [self._parameters[n] for n in names], list(pull)))

    def _sparsity(self) -> float:
        """What is 0 in Z, and what was cut before in tensors that Z does not have, ÷ all parameters."""
        n_zero = sum(z.numel() - int(z.count_nonzero()) for z in self._z.values())
        n_zero += sum(int(m.numel() - m.sum()) for name, m in self._masks.items() if name not in self._z)
        return n_zero / self._n_parameters

    def _measure(self, weights: Mapping[str, Tensor]) -> float:
        if not self._z:
            return 0.0
        own = [weights[name] for name in self._z]
        away = torch._foreach_norm(torch._foreach_sub(own, list(self._z.values())))
        distance, size = (float(torch.stack(list(norms)).norm()) for norms in (away, torch._foreach_norm(own)))
        return distance / size if size else 0.0


def _n_parameters(module: nn.Module) -> int:
    return max(sum(parameter.numel() for parameter in module.parameters()), 1)
