"""Weights drawn towards a constraint set inside the training loop, and what is told of it; it must never run the loop.

What pulls, and how hard it pulls single weights, is the matter of a method: `AdmmHook`, `LassoHook`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compressor.asking import Admm
from compressor.asking.penalty import Course, Reading
from compressor.pruning.hooks import Parameters, n_parameters
from compressor.sparsity import Selector
from compressor.training import BaseHook, gathered, held, is_spread, own_part, total

PLANNED = "planned residual"
"""What an epoch calls the residual that the penalty is steered by."""


class DrawHook(BaseHook):
    """The gradient of the pull at every step; the set and the penalty anew `updates` times in the `n_steps` of a stage.

    Z is W without what `cut` (1 or 0, in the weight's type) names, at every step; the Z of the last epoch is stored to
    see whether it comes to rest. The first one is the projection of W (a Z that starts as W would leave the first
    epochs without any pull). What `masks` cut already stays cut. From `hold` of the stage on the set stays: a unit that
    is drawn half-way and given up is lost work. The `sparsity` that it tells is Z's: the share of the module's
    parameters that the hard prune would cut now.
    """

    def __init__(
        self,
        module: Parameters,
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
        self._is_spread = any(map(is_spread, self._parameters.values()))
        self._rho = self._used_rho = self._course.first
        self._cut: dict[str, Tensor] = {}
        self._choose()
        self._follow({})
        self._first_residual = self._left_before = self.residual
        self._group()

    @property
    def residual(self) -> float:
        """The primal one, ‖W − Z‖ / ‖W‖ over all constrained tensors."""
        size = self._norm([held(p.detach()) for p in self._constrained])
        return self._norm(self._away(self._cut)) / size if size else 0.0

    @property
    def residuals(self) -> dict[str, float]:
        """The same of each constrained tensor."""
        found: dict[str, float] = {}
        for name, cut in self._cut.items():
            weight = held(self._parameters[name].detach())
            size = self._all_of(float(weight.norm()))
            found[name] = self._all_of(float((weight * cut).norm())) / size if size else 0.0
        return found

    @property
    def masks(self) -> dict[str, Tensor]:
        """What Z keeps, True = keep."""
        return {name: cut == 0 for name, cut in self._gathered(self._cut).items()}

    @torch.no_grad()
    def on_gradients(self) -> None:
        for factor, names in self._groups.items():
            pairs = [(name, grad) for name in names if (grad := self._parameters[name].grad) is not None]
            if pairs and self._rho * factor:
                self._pull([name for name, _ in pairs], [held(grad) for _, grad in pairs], self._rho * factor)

    def on_update(self) -> None:
        n_due = [step * self._settings.updates // self._n_steps for step in (self._step, self._step + 1)]
        self._step += 1
        if n_due[1] > n_due[0]:
            self.renew()

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        self._follow(self._z)
        planned = self._course.planned(self._step / self._n_steps)
        aim = {} if planned is None else {PLANNED: planned * self._first_residual}
        return {
            "sparsity": self._sparsity(), "residual": self.residual, "penalty": self._penalty(), "rho": self._used_rho,
            "dual residual": self._dual, **aim,
        }  # fmt: skip

    @torch.no_grad()
    def renew(self) -> None:
        """What is cut, and the next penalty."""
        if self._step < self._settings.hold * self._n_steps:
            self._choose()
        found = self.residual / self._first_residual if self._first_residual else 0.0
        n_updates = min(self._settings.updates, self._n_steps)
        reading = Reading(self._step / self._n_steps, found, self._left_before, n_updates)
        self._used_rho, self._rho = self._rho, self._course.after(self._rho, reading)
        self._left_before = found
        self._group()

    def finished(self) -> bool:
        """Both residuals are small: W lies in the set, and Z has come to rest. The dual one is that of a whole epoch: a
        network whose rate is still to fall is not finished because its weights are where they should be."""
        return max(self.residual, self._dual) < self._settings.residual

    def state_dict(self) -> dict[str, Any]:
        cut, z = self._gathered(self._cut), self._gathered(self._z)
        return {
            "cut": cut, "z": z, "rho": self._rho, "used_rho": self._used_rho, "step": self._step, "dual": self._dual,
            "first_residual": self._first_residual, "left_before": self._left_before,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._cut, self._z = self._placed(state["cut"]), self._placed(state["z"])
        self._rho, self._used_rho, self._step = state["rho"], state["used_rho"], state["step"]
        self._dual = state["dual"]
        self._first_residual, self._left_before = state["first_residual"], state["left_before"]
        self._group()

    def _pull(self, names: list[str], gradients: list[Tensor], scale: float) -> None:
        """Adds `scale` times the pull to the gradients."""
        raise NotImplementedError

    def _lifted(self) -> dict[str, Tensor]:
        """What is projected, whole."""
        return {name: gathered(p.detach()) for name, p in self._parameters.items()}

    def _penalty(self) -> float:
        """The value of which the pull is the gradient: what the training loss leaves out."""
        raise NotImplementedError

    def _placed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where the weights are, and as far as they are here."""
        places = {name: self._parameters[name] for name in tensors}
        return {name: own_part(tensor.to(places[name].device), places[name]) for name, tensor in tensors.items()}

    def _gathered(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors, of those that lie as the weights do."""
        return {name: gathered(part, self._parameters[name]) for name, part in parts.items()}

    def _norm(self, tensors: list[Tensor]) -> float:
        """The norm of all of them as one vector, over all processes that have a part of it."""
        return self._all_of(norm(tensors))

    def _all_of(self, length: float) -> float:
        """The norm of what all processes have, from that of what this one has."""
        return math.sqrt(total(length**2, self._constrained)) if self._is_spread else length

    @property
    def _constrained(self) -> list[Tensor]:
        return [self._parameters[name] for name in self._cut]

    def _away(self, names: Mapping[str, Any] | list[str]) -> list[Tensor]:
        """W − Z of these tensors."""
        return [held(self._parameters[name].detach()) * self._cut[name] for name in names]

    @torch.no_grad()
    def _choose(self) -> None:
        """What Z cuts. A tensor that is whole this time stays constrained if it was before."""
        chosen = self._selector.select(self._lifted(), self._ratio, self._masks).masks
        for name in dict.fromkeys([*self._cut, *(name for name in chosen if name in self._parameters)]):
            parameter, mask = self._parameters[name].detach(), chosen.get(name)
            weight = held(parameter)
            self._cut[name] = torch.zeros_like(weight) if mask is None else own_part((~mask).to(weight), parameter)

    def _group(self) -> None:
        """Tensors by the factor of their penalty."""
        self._groups: dict[float, list[str]] = {}
        for name in self._cut:
            self._groups.setdefault(self._course.factors.get(name, 1.0), []).append(name)

    def _follow(self, before: Mapping[str, Tensor]) -> None:
        """Z as it is now, and how far it has moved since it was `before`."""
        self._z = {name: held(self._parameters[name].detach()) * (1 - cut) for name, cut in self._cut.items()}
        moved = [z - before[name] if name in before else z for name, z in self._z.items()]
        size = self._norm(list(self._z.values()))
        self._dual = self._norm(moved) / size if size else 0.0

    def _sparsity(self) -> float:
        """What is 0 in Z, and what was cut before in tensors that Z does not have, ÷ all parameters."""
        n_zero = int(total(sum(int(cut.count_nonzero()) for cut in self._cut.values()), self._constrained))
        n_zero += sum(int(m.numel() - m.sum()) for name, m in self._masks.items() if name not in self._cut)
        return n_zero / self._n_parameters


def norm(tensors: list[Tensor]) -> float:
    """The norm of all of them as one vector."""
    norms = torch._foreach_norm(tensors) if tensors else ()
    return float(torch.stack([norm.float() for norm in norms]).norm()) if norms else 0.0
