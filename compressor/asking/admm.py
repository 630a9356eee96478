"""Hyper-parameters of the ADMM stage, as one checked value; it must never hold the iteration itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from compressor.asking.globs import read_globs
from compressor.asking.option import above_up_to, at_least, check, from_to, option
from compressor.asking.panels import EXPERIMENTS
from compressor.asking.penalty import Course, Growing, Steered
from compressor.asking.recipe import Recipe
from compressor.errors import UsageError

_RHO_MAX = 1.0
_STABLE = 0.5
"""Largest learning rate x penalty."""


@dataclass(frozen=True)
class Admm:
    """Hyper-parameters of the ADMM stage (Zhang et al. 2018, ADAM-ADMM), and of the search by group lasso.

    `rho` is the first penalty. It is steered so that the residual ‖W − Z‖/‖W‖ goes down a straight line and is 0 when
    `settle` of the stage is done (`penalty.Steered`). With `rho_growth` or `rho_max` it is multiplied at every update
    instead, by what was given or what leads to `rho_max` at the last one. `rho` = 0 pulls nothing: plain training, the
    control. `layer_rho` gives layers, by glob, a first penalty of their own; all change alike. `updates` of Z and U
    come in a stage, evenly spaced over its steps however many epochs it has; until `hold` of it is done what Z cuts is
    chosen anew at each. The stage ends early when the residual and the relative change of Z in an epoch are both under
    `residual`. `stages` > 1 approaches the ratio progressively.

    Raises:  UsageError for a value out of range.
    """

    rho: float = option(
        1e-3,
        "First penalty of admm and group-lasso; 0 pulls nothing.",
        metavar="RHO",
        panel=EXPERIMENTS,
        range=at_least(0),
    )
    rho_growth: float | None = option(
        None,
        "Growth of the penalty at every update, instead of one that follows the residual.",
        metavar="X", panel=EXPERIMENTS, range=at_least(1),
    )  # fmt: skip
    rho_max: float | None = option(
        None,
        "Largest penalty; it grows evenly and reaches this at the last update, instead of following the residual.",
        metavar="RHO", panel=EXPERIMENTS,
    )  # fmt: skip
    layer_rho: tuple[tuple[str, float], ...] = option(
        (),
        "First penalty of single layers; repeat.",
        metavar="GLOB=RHO", panel=EXPERIMENTS, repeat=True,
        read=read_globs("--layer-rho", "GLOB=RHO, as in 'conv*=0.01'"),
    )  # fmt: skip
    updates: int = option(
        40, "Updates of set and penalty in a search.", metavar="N", panel=EXPERIMENTS, range=at_least(1)
    )
    residual: float = 0.005
    stages: int = option(1, "Searches on the way to the ratio.", metavar="N", panel=EXPERIMENTS, range=at_least(1))
    settle: float = option(
        0.6, "Share of the search after which what goes is to be 0.", metavar="SHARE", panel=EXPERIMENTS,
        range=above_up_to(0, 1),
    )  # fmt: skip
    hold: float = option(
        0.3, "Share of the search after which the choice of what goes stays.", metavar="SHARE", panel=EXPERIMENTS,
        range=from_to(0, 1),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)
        if self.rho_max is not None and not (self.rho_max >= self.rho and math.isfinite(self.rho_max)):
            raise UsageError(f"--rho-max {self.rho_max:g}: must be at least --rho, here {self.rho:g}")
        for glob, rho in self.layer_rho:
            if not (rho >= 0 and math.isfinite(rho)):
                raise UsageError(f"--layer-rho {glob}={rho:g}: must be 0 or more")
        if self.rho == 0 and (self.rho_max or any(rho for _, rho in self.layer_rho)):
            raise UsageError("--rho 0: nothing grows from it; leave --rho-max and --layer-rho out, or give --rho 1e-3")

    def course(
        self,
        recipe: Recipe | None = None,
        n_steps: int = 0,
        factors: Mapping[str, float] | None = None,
        hardest: float = 1.0,
    ) -> Course:
        """The penalty of a stage of `n_steps` trained by `recipe`, with factors of single tensors; single weights are
        pulled at most `hardest` times as hard.

        A steered one may become large, because it only pulls what goes; for sgd a step of lr · ρ towards Z − U
        overshoots from 1 on, and with momentum it diverges soon after.
        """
        known = factors or {}
        if self.rho == 0:
            return Growing(0.0, 1.0, 0.0, known)
        lr = (recipe or Recipe()).lr
        stable = max(_STABLE / (lr * hardest), self.rho)
        if self.rho_growth is None and self.rho_max is None:
            return Steered(self.rho, self.settle, stable, factors=known)
        limit = self.rho_max
        if limit is None:
            limit = stable if recipe is not None and recipe.optimizer == "sgd" else max(_RHO_MAX, self.rho)
        growth = self.rho_growth
        if growth is None:
            n_updates = min(self.updates, n_steps) if n_steps else self.updates
            growth = (limit / self.rho) ** (1 / (n_updates - 1)) if n_updates > 1 else 1.0
        return Growing(self.rho, growth, limit, known)
