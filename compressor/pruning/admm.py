"""ADMM: what pulls the weights towards the set, and by how much; it must never choose the set or run the loop.

Zhang et al. 2018 (arXiv 1807.11091, eq. 4-9) minimise f(W) + Σ ρ/2 ‖W − Z + U‖² subject to Z in S by
    W-step  mini-batches with the extra gradient ρ(W − Z + U)
    Z-step  Z = W + U without what the selector cuts from it
    U-step  U = U + W − Z
and when ρ changes, U changes the other way: it is the dual variable divided by ρ (Boyd et al. 2011, "Distributed
Optimization", sec. 3.4.1), which the paper's constant ρ leaves open.

Three things differ, so that it works on residual networks too (benchmarks/RESULTS.md has what was measured of each):
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
from torch import Tensor

from compressor.asking import Admm
from compressor.asking.penalty import Course
from compressor.pruning.drawing import DrawHook
from compressor.pruning.hooks import Parameters
from compressor.sparsity import Selector
from compressor.training import held


class AdmmHook(DrawHook):
    """Pulls with ρ(W − Z + U); U is 0 where Z keeps."""

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
        self._u: dict[str, Tensor] = {}
        super().__init__(module, selector, ratio, settings, n_steps, course, masks=masks)
        self._gap = self._distance()

    @torch.no_grad()
    def renew(self) -> None:
        """The Z-step, the next penalty and the U-step."""
        step = dual_step(self._distance() / self._gap if self._gap else 0.0)
        super().renew()
        rescale = self._used_rho / self._rho if self._rho else 1.0
        for name, away in zip(self._cut, self._away(self._cut), strict=True):
            self._u[name].add_(away, alpha=step).mul_(rescale)
        self._gap = self._distance()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "u": self._gathered(self._u), "gap": self._gap}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._u, self._gap = self._placed(state["u"]), state["gap"]

    def _pull(self, names: list[str], gradients: list[Tensor], scale: float) -> None:
        """Two fused additions and no autograd."""
        weights = [held(self._parameters[name].detach()) for name in names]
        torch._foreach_addcmul_(gradients, [self._cut[name] for name in names], weights, scale)
        torch._foreach_add_(gradients, [self._u[name] for name in names], alpha=scale)

    def _lifted(self) -> dict[str, Tensor]:
        """W + U."""
        weights = super()._lifted()
        return {**weights, **{name: weights[name] + u for name, u in self._gathered(self._u).items()}}

    def _choose(self) -> None:
        """What is kept now loses its U, because its Z is W + U."""
        super()._choose()
        for name, cut in self._cut.items():
            self._u[name] = self._u[name] * cut if name in self._u else torch.zeros_like(cut)

    def _distance(self, names: Mapping[str, Any] | list[str] | None = None) -> float:
        """‖W − Z + U‖."""
        chosen = list(self._cut if names is None else names)
        if not chosen:
            return 0.0
        return self._norm(list(torch._foreach_add(self._away(chosen), [self._u[name] for name in chosen])))

    def _penalty(self) -> float:
        """Σ ρ/2 ‖W − Z + U‖²."""
        parts = (factor / 2 * self._distance(names) ** 2 for factor, names in self._groups.items())
        return self._rho * sum(parts)


def dual_step(left: float) -> float:
    """The share of the U-step that does not let W swing, after a W-step that left the share `left` of its way.

    W falls towards Z − U like e^(−t/τ), and U gains a share η of it every T steps: the two together are an oscillator,
    which is critically damped for η = T/4τ, and −T/τ is the logarithm of `left`.
    """
    return min(-math.log(left) / 4, 1.0) if 0 < left < 1 else float(left <= 0)
