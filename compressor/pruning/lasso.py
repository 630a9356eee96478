"""Group lasso on what the budget would cut: how hard it pulls each unit; it must never choose the set or run the loop.

Adds ρ Σ √n_u ‖w_u‖ to the loss, over the coupled units u that the budget leaves out, w_u all n_u weights that go with
u. The norm is not squared: the pull on a unit does not fade as the unit does, so that it ends at 0 and not near it,
small units first. Its gradient is ρ w_u √n_u / ‖w_u‖; between two updates the norms are those of the last one, which
makes it the weighted L2 that bounds the lasso from above there (iteratively reweighted least squares).

Source:  Yuan & Lin 2006, "Model selection and estimation in regression with grouped variables"; on coupled units as in
         Fang et al. 2023, "DepGraph", sec. 3.3; growing, and on what is to go only: Wang et al. 2021, "Neural Pruning
         via Growing Regularization" (there squared). Norms are the scores that rank: the root mean square of a unit
         over all its slices, each tensor scaled to mean 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.asking import Admm
from compressor.asking.penalty import Course
from compressor.axes import UnitMap
from compressor.pruning.drawing import DrawHook, norm
from compressor.pruning.hooks import Parameters
from compressor.sparsity import Selector, kept_units, score_units
from compressor.training import is_spread, refuse_spread

_LEAST = 0.1
"""Norms below this share of the mean one pull no harder: a step must not overshoot."""
HARDEST = 2 / _LEAST
"""The largest F: an entry can lie in two units."""


class LassoHook(DrawHook):
    """Pulls with ρ F · W; F is 0 where Z keeps, and 1 ÷ the norm of its unit, relative to the mean, elsewhere.

    Raises:  UsageError if each process has a part of the weights only.
    """

    def __init__(
        self,
        module: Parameters,
        units: UnitMap,
        selector: Selector,
        ratio: float,
        settings: Admm,
        n_steps: int,
        course: Course | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._units = units
        if any(is_spread(parameter) for parameter in module.parameters()):
            raise refuse_spread("--method group-lasso")
        super().__init__(module, selector, ratio, settings, n_steps, course, masks=masks)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "force": self._force}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._force = self._placed(state["force"])

    def _pull(self, names: list[str], gradients: list[Tensor], scale: float) -> None:
        weights = [self._parameters[name].detach() for name in names]
        torch._foreach_addcmul_(gradients, [self._force[name] for name in names], weights, scale)

    def _group(self) -> None:
        super()._group()
        self._force = self._forces()

    def _forces(self) -> dict[str, Tensor]:
        """F of every constrained tensor; an entry in two slices that go counts for both, as it does in the score."""
        weights = {name: p.detach() for name, p in self._parameters.items()}
        norms = np.sqrt(score_units(self._units, weights, lambda name, dim: True, self._masks))
        gone = ~kept_units(self._units, self.masks, weights)
        if self._masks:
            gone &= kept_units(self._units, self._masks, weights)
        mean = float(norms[gone].mean()) if gone.any() else 0.0
        pull = np.where(gone, mean / np.maximum(norms, _LEAST * mean), 0.0) if mean else np.zeros(len(norms))
        forces = {name: torch.zeros_like(cut) for name, cut in self._cut.items()}
        for (name, dim), of_index in self._units.axes.items():
            if name in forces:
                along = torch.from_numpy(np.append(pull, 0.0)[of_index]).to(forces[name])
                forces[name] += along.reshape([-1 if d == dim else 1 for d in range(forces[name].dim())])
        return forces

    def _penalty(self) -> float:
        """The weighted L2: Σ ρ/2 F w²."""
        parts = (
            factor / 2 * norm([self._parameters[n].detach() * self._force[n].sqrt() for n in names]) ** 2
            for factor, names in self._groups.items()
        )
        return self._rho * sum(parts)
