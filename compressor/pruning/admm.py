"""The ADMM stage as it takes part in the training loop; it must never run the loop.

Zhang et al. 2018 (arXiv 1807.11091, eq. 4-9) minimise f(W) + Σ ρ/2 ‖W − Z + U‖² subject to Z in S by
    W-step  mini-batches with the extra gradient ρ(W − Z + U)
    Z-step  Z = W + U without what the selector cuts from it
    U-step  U = U + W − Z
and when ρ changes, U changes the other way: it is the dual variable divided by ρ (Boyd et al. 2011, "Distributed
Optimization", sec. 3.4.1), which the paper's constant ρ leaves open.

Three things differ, and each was what kept it from working on residual networks (benchmarks/RESULTS.md):
  - What Z keeps is not pulled. Z is the best answer to W at every moment there (Z = W + U, U = 0), not only at the
    updates; pulled towards the W of the last update, the weights that stay cannot make up for those that go.
  - U is taken in part, as the W-step got its part of the way (`dual_step`). It is meant to sum up what W-steps leave
    that end at their minimum. Where mini-batches bring W a tenth of the way, it sums up the same remainder again and
    again, W is thrown through 0 to the other side, and swings.
  - From `hold` of the stage on what Z cuts stays the same: a unit that is drawn half-way and given up is lost work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.pruning.hooks import n_parameters
from compressor.pruning.penalty import Course, Reading
from compressor.pruning.settings import Admm
from compressor.sparsity import Selector
from compressor.training import BaseHook


class AdmmHook(BaseHook):
    """The penalty's gradient at every step, new Z and U `updates` times in the `n_steps` of a stage.

    Z is W without what `cut` names, at every step, and U is 0 outside of that; the Z of the last update is stored to
    see whether it comes to rest. The first Z is the projection of W
    with U = 0 (a Z that starts as W would leave the first epochs without any pull). What `masks` cut already stays cut.
    The `sparsity` that it tells is Z's: the share of the module's parameters that the hard prune would cut now.
    """

    def __init__(
        self,
        module: nn.Module,
        selector: Selector,
        ratio: float,
        settings: Admm,
        n_steps: int,
        course: Course | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._selector, self._ratio, self._settings, self._masks = selector, ratio, settings, dict(masks or {})
        self._course = course or settings.course(n_steps=n_steps)
        self._n_steps, self._step = n_steps, 0
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._n_parameters = n_parameters(module)
        self._rho = self._used_rho = self._course.first
        self._cut: dict[str, Tensor] = {}
        self._u: dict[str, Tensor] = {}
        self._choose()
        self._follow({})
        self._first_residual = self._left_before = self.residual
        self._gap = self._distance(lifted=True)
        self._group()

    @property
    def residual(self) -> float:
        """The primal one, ‖W − Z‖ / ‖W‖ over all constrained tensors."""
        size = _norm([p.detach() for p in self._constrained])
        return self._distance() / size if size else 0.0

    @property
    def residuals(self) -> dict[str, float]:
        """The same of each constrained tensor."""
        found: dict[str, float] = {}
        for name, cut in self._cut.items():
            weight = self._parameters[name].detach()
            size = float(weight.norm())
            found[name] = float((weight * cut).norm()) / size if size else 0.0
        return found

    @property
    def masks(self) -> dict[str, Tensor]:
        """What Z keeps, True = keep."""
        return {name: cut == 0 for name, cut in self._cut.items()}

    @torch.no_grad()
    def on_gradients(self) -> None:
        for factor, names in self._groups.items():
            pairs = [(name, grad) for name in names if (grad := self._parameters[name].grad) is not None]
            if not pairs or not self._rho * factor:
                continue
            there, gradients = [name for name, _ in pairs], [grad for _, grad in pairs]
            weights = [self._parameters[name].detach() for name in there]
            # ρ(W + U) of what is cut: two fused additions and no autograd.
            torch._foreach_addcmul_(gradients, [self._cut[name] for name in there], weights, self._rho * factor)
            torch._foreach_add_(gradients, [self._u[name] for name in there], alpha=self._rho * factor)

    def on_update(self) -> None:
        n_due = [step * self._settings.updates // self._n_steps for step in (self._step, self._step + 1)]
        self._step += 1
        if n_due[1] > n_due[0]:
            self.renew()

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        return {
            "sparsity": self._sparsity(), "residual": self.residual, "dual residual": self._dual,
            "rho": self._used_rho, "penalty": self._penalty(),
        }  # fmt: skip

    @torch.no_grad()
    def renew(self) -> None:
        """The Z-step, the U-step and the next penalty."""
        step = dual_step(self._distance(lifted=True) / self._gap if self._gap else 0.0)
        if self._step < self._settings.hold * self._n_steps:
            self._choose()
        found = self.residual / self._first_residual if self._first_residual else 0.0
        n_updates = min(self._settings.updates, self._n_steps)
        reading = Reading(self._step / self._n_steps, found, self._left_before, n_updates)
        self._used_rho, self._rho = self._rho, self._course.after(self._rho, reading)
        self._left_before = found
        rescale = self._used_rho / self._rho if self._rho else 1.0
        for name, cut in self._cut.items():
            self._u[name].add_(self._parameters[name].detach() * cut, alpha=step).mul_(rescale)
        self._gap = self._distance(lifted=True)
        self._follow(self._z)
        self._group()

    def finished(self) -> bool:
        """Both residuals are small: W lies in the set, and Z has come to rest."""
        return max(self.residual, self._dual) < self._settings.residual

    def state_dict(self) -> dict[str, Any]:
        return {
            "cut": self._cut, "u": self._u, "rho": self._rho, "used_rho": self._used_rho, "step": self._step,
            "dual": self._dual, "first_residual": self._first_residual, "left_before": self._left_before,
            "gap": self._gap, "z": self._z,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        to = {name: p.device for name, p in self._parameters.items()}
        self._cut, self._u, self._z = (
            {name: tensor.to(to[name]) for name, tensor in state[kind].items()} for kind in ("cut", "u", "z")
        )
        self._rho, self._used_rho, self._step = state["rho"], state["used_rho"], state["step"]
        self._dual, self._gap = state["dual"], state["gap"]
        self._first_residual, self._left_before = state["first_residual"], state["left_before"]
        self._group()

    @property
    def _constrained(self) -> list[Tensor]:
        return [self._parameters[name] for name in self._cut]

    @torch.no_grad()
    def _choose(self) -> None:
        """What Z cuts of W + U. A tensor that is whole this time stays constrained if it was before; what is kept now
        loses its U, because its Z is W + U."""
        lifted = {name: p.detach() for name, p in self._parameters.items()}
        lifted |= {name: lifted[name] + u for name, u in self._u.items()}
        chosen = self._selector.select(lifted, self._ratio, self._masks).masks
        for name in dict.fromkeys([*self._cut, *(name for name in chosen if name in self._parameters)]):
            weight, mask = self._parameters[name].detach(), chosen.get(name)
            self._cut[name] = torch.zeros_like(weight) if mask is None else (~mask).to(weight)
            # A product would turn what is infinite into NaN; torch.where costs the same.
            self._u[name] = torch.where(self._cut[name] != 0, self._u.get(name, self._cut[name] * 0), 0.0)

    def _group(self) -> None:
        """Tensors by the factor of their penalty."""
        self._groups: dict[float, list[str]] = {}
        for name in self._cut:
            self._groups.setdefault(self._course.factors.get(name, 1.0), []).append(name)

    def _follow(self, before: Mapping[str, Tensor]) -> None:
        """Z as it is now, and how far it has moved since it was `before`."""
        self._z = {name: self._parameters[name].detach() * (1 - cut) for name, cut in self._cut.items()}
        moved = [z - before[name] if name in before else z for name, z in self._z.items()]
        size = _norm(list(self._z.values()))
        self._dual = _norm(moved) / size if size else 0.0

    def _distance(self, *, lifted: bool = False) -> float:
        """‖W − Z‖, or ‖W − Z + U‖."""
        away = [self._parameters[name].detach() * cut for name, cut in self._cut.items()]
        return _norm(list(torch._foreach_add(away, list(self._u.values()))) if lifted and away else away)

    def _penalty(self) -> float:
        """Σ ρ/2 ‖W − Z + U‖²: what the training loss leaves out."""
        return sum(
            self._rho * factor / 2
            * _norm([self._parameters[name].detach() * self._cut[name] + self._u[name] for name in names]) ** 2
            for factor, names in self._groups.items()
        )  # fmt: skip

    def _sparsity(self) -> float:
        """What is 0 in Z, and what was cut before in tensors that Z does not have, ÷ all parameters."""
        n_zero = sum(int(cut.count_nonzero()) for cut in self._cut.values())
        n_zero += sum(int(m.numel() - m.sum()) for name, m in self._masks.items() if name not in self._cut)
        return n_zero / self._n_parameters


def dual_step(left: float) -> float:
    """The share of the U-step that does not let W swing, after a W-step that left the share `left` of its way.

    W falls towards Z − U like e^(−t/τ), and U gains a share η of it every T steps: the two together are an oscillator,
    which is critically damped for η = T/4τ, and −T/τ is the logarithm of `left`.
    """
    return min(-math.log(left) / 4, 1.0) if 0 < left < 1 else float(left <= 0)


def _norm(tensors: list[Tensor]) -> float:
    """The norm of all of them as one vector."""
    norms = torch._foreach_norm(tensors) if tensors else ()
    return float(torch.stack([norm.float() for norm in norms]).norm()) if norms else 0.0
