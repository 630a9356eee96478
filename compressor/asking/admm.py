"""Hyper-parameters of the ADMM stage, as one checked value; it must never hold the iteration itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compressor.asking.globs import read_globs
from compressor.asking.option import above, at_least, check, option
from compressor.asking.panels import EXPERIMENTS, HOW
from compressor.asking.recipe import Recipe
from compressor.errors import UsageError

_RHO_MAX = 1.0
_PULL = 100.0
"""Largest penalty x steps between two updates: more pull than this leaves the loss no say."""
_STABLE = 0.5
"""Largest learning rate x penalty for sgd."""


@dataclass(frozen=True)
class Admm:
    """Hyper-parameters of the ADMM stage (Zhang et al. 2018, ADAM-ADMM).

    `rho` is the first penalty, multiplied by `rho_growth` at every update of Z and U up to `rho_max`; without a growth
    it takes the one that reaches `rho_max` at the last update, without a limit a usual one (`course`). `layer_rho`
    gives layers, by glob, a first penalty of their own; all grow alike. `updates` of Z and U come in a stage, evenly
    spaced over its steps however many epochs it has; it is their number that counts (the paper's code makes 10 to 40).
    The stage ends early when the residual ‖W − Z‖/‖W‖ falls under `residual`. `stages` > 1 approaches the ratio
    progressively.

    Raises:  UsageError for a value out of range.
    """

    rho: float = option(1e-3, "First penalty of ADMM.", metavar="RHO", panel=HOW, range=above(0))
    rho_growth: float | None = option(
        None,
        "Growth of the penalty at every update. Default: what reaches --rho-max at the last one.",
        metavar="X", panel=EXPERIMENTS, range=at_least(1),
    )  # fmt: skip
    rho_max: float | None = option(
        None,
        "Largest penalty of ADMM. Default: 1, at most 100 ÷ steps per update, for sgd also 0.5 ÷ lr.",
        metavar="RHO", panel=HOW,
    )  # fmt: skip
    layer_rho: tuple[tuple[str, float], ...] = option(
        (),
        "First penalty of single layers; repeat.",
        metavar="GLOB=RHO", panel=EXPERIMENTS, repeat=True,
        read=read_globs("--layer-rho", "GLOB=RHO, as in 'conv*=0.01'"),
    )  # fmt: skip
    updates: int = option(40, "Updates of Z and U in an ADMM stage.", metavar="N", panel=HOW, range=at_least(1))
    residual: float = 0.005
    stages: int = option(1, "ADMM stages on the way to the ratio.", metavar="N", panel=HOW, range=at_least(1))

    def __post_init__(self) -> None:
        check(self)
        if self.rho_max is not None and self.rho_max < self.rho:
            raise UsageError(f"--rho-max {self.rho_max:g}: must be at least --rho, here {self.rho:g}")
        for glob, rho in self.layer_rho:
            if not (rho > 0 and math.isfinite(rho)):
                raise UsageError(f"--layer-rho {glob}={rho:g}: must be above 0")

    def course(self, recipe: Recipe | None = None, n_steps: int = 0) -> tuple[float, float]:
        """Growth of the penalty from update to update, and its limit, in a stage of `n_steps` trained by `recipe`.

        The usual limit is 1, or less where the steps between two updates pull long enough: on MNIST's 60,000 digits 1
        cost accuracy that 0.1 did not, on 4,000 digits it took 1. For sgd it respects the rate: a step of lr · ρ
        towards Z − U overshoots from 1 on, and with momentum it diverges soon after.
        """
        limit = self.rho_max
        if limit is None:
            limit = min(_RHO_MAX, _PULL / max(n_steps / self.updates, 1))
            if recipe is not None and recipe.optimizer == "sgd":
                limit = min(limit, _STABLE / recipe.lr)
            limit = max(limit, self.rho)
        if self.rho_growth is not None:
            return self.rho_growth, limit
        n_updates = min(self.updates, n_steps) if n_steps else self.updates
        return (limit / self.rho) ** (1 / (n_updates - 1)) if n_updates > 1 else 1.0, limit
