"""The options of one pruning run, checked when they are made; it must never hold results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from compressor.axes import THROUGH_NORM, ThroughNorm, WalkOptions
from compressor.errors import UsageError
from compressor.training import Recipe

METHODS = ("magnitude", "admm", "random")
PATTERNS = ("filter", "channel", "head", "unstructured")
ALLOCATIONS = ("global", "uniform")


@dataclass(frozen=True)
class Admm:
    """Hyper-parameters of the ADMM stage (Zhang et al. 2018, ADAM-ADMM).

    `rho` is the first penalty, multiplied by `rho_growth` at every update of Z and U; an update comes every
    `update_epochs` epochs for `epochs` epochs; the stage ends early when the residual ‖W − Z‖/‖W‖ falls under
    `residual`. `stages` > 1 approaches the ratio progressively.
    """

    rho: float = 1e-3
    rho_growth: float = 1.3
    rho_max: float = 1.0
    update_epochs: int = 1
    residual: float = 0.005
    stages: int = 1

    def __post_init__(self) -> None:
        if not (self.rho > 0 and math.isfinite(self.rho)):
            raise UsageError(f"--rho {self.rho:g}: must be above 0")
        if self.rho_growth < 1:
            raise UsageError(f"--rho-growth {self.rho_growth:g}: must be at least 1")
        if self.update_epochs < 1 or self.stages < 1:
            raise UsageError("--update-epochs and --stages must be at least 1")


@dataclass(frozen=True)
class PruneSettings:
    """Everything `prune` is asked for.

    `ratio` is dense ÷ kept of the compacted model, counted `of` params or MACs over the layers in `scope`.
    `through_norm` says whether units that pass a mean or a variance may go (`axes.WalkOptions`).
    `prune_recipe` is the training while the structure is being found (the ADMM epochs, or each magnitude step but the
    last), `retrain_recipe` the final retraining; None leaves training out.
    """

    ratio: float
    method: Literal["magnitude", "admm", "random"] = "admm"
    pattern: Literal["filter", "channel", "head", "unstructured"] = "channel"
    through_norm: ThroughNorm = "pin"
    of: Literal["params", "macs"] = "params"
    allocation: Literal["global", "uniform"] = "global"
    steps: int = 1
    schedule: Literal["geometric", "cubic"] = "geometric"
    scope: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    floor: float = 0.05
    round_to: int = 1
    admm: Admm = field(default_factory=Admm)
    prune_recipe: Recipe | None = None
    retrain_recipe: Recipe | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("--method", self.method, METHODS),
            ("--pattern", self.pattern, PATTERNS),
            ("--through-norm", self.through_norm, THROUGH_NORM),
            ("--of", self.of, ("params", "macs")),
            ("--allocation", self.allocation, ALLOCATIONS),
            ("--schedule", self.schedule, ("geometric", "cubic")),
        ):
            if value not in allowed:
                raise UsageError(f"{option} {value}: choose one of {', '.join(allowed)}")
        if not (self.ratio > 1 and math.isfinite(self.ratio)):
            raise UsageError(f"--ratio {self.ratio:g}: a ratio is dense ÷ kept and must be above 1")
        if self.steps < 1 or self.round_to < 1:
            raise UsageError("--steps and --round-to must be at least 1")
        if not 0 <= self.floor < 1:
            raise UsageError(f"--floor {self.floor:g}: the share of each layer that always stays, from 0 to below 1")

    @property
    def walk(self) -> WalkOptions:
        """How the units are found."""
        return WalkOptions(keep_heads=self.pattern == "head", through_norm=self.through_norm)
