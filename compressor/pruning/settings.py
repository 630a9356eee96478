"""The options of one pruning run, checked when they are made; it must never hold results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from compressor.axes import THROUGH_NORM, ThroughNorm, WalkOptions
from compressor.errors import UsageError
from compressor.patterns import Pattern, parse_pattern
from compressor.pruning.recovery import Recovery
from compressor.sparsity import CRITERIA, NEEDS_UNITS, Sensitivity
from compressor.training import Recipe
from compressor.units import format_ratio

METHODS = ("magnitude", "admm", "random")
ALLOCATIONS = ("global", "uniform", "sensitivity", "latency")
UNIT_PATTERNS = ("filter", "channel", "head")
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
    """

    rho: float = 1e-3
    rho_growth: float | None = None
    rho_max: float | None = None
    layer_rho: tuple[tuple[str, float], ...] = ()
    updates: int = 40
    residual: float = 0.005
    stages: int = 1

    def __post_init__(self) -> None:
        if not (self.rho > 0 and math.isfinite(self.rho)):
            raise UsageError(f"--rho {self.rho:g}: must be above 0")
        if self.rho_growth is not None and not (self.rho_growth >= 1 and math.isfinite(self.rho_growth)):
            raise UsageError(f"--rho-growth {self.rho_growth:g}: must be at least 1")
        if self.rho_max is not None and not (self.rho_max >= self.rho and math.isfinite(self.rho_max)):
            raise UsageError(f"--rho-max {self.rho_max:g}: must be at least --rho, here {self.rho:g}")
        for glob, rho in self.layer_rho:
            if not (rho > 0 and math.isfinite(rho)):
                raise UsageError(f"--layer-rho {glob}={rho:g}: must be above 0")
        for option, value in (("--updates", self.updates), ("--stages", self.stages)):
            if value < 1:
                raise UsageError(f"{option} {value}: must be at least 1")

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


@dataclass(frozen=True)
class PruneSettings:
    """Everything `prune` is asked for.

    `ratio` is dense ÷ kept of the compacted model, counted `of` params, MACs or latency over the layers in `scope`.
    Time is what a stopwatch measures for each layer; with `allocation="latency"` it decides between widths that cost
    the same. With `round_to` 0 whole units leave widths that the runtime likes, as a stopwatch finds or as is
    usual; N makes them multiples of N, and 1 leaves them as the scores have it.
    `unit_share` is the part of the ratio that whole units carry in `filter+shape` and the like, as a power (`Choice`).
    `through_norm` says whether units that pass a mean or a variance may go (`axes.WalkOptions`).
    `prune_recipe` is the training while the structure is being found (the ADMM epochs, or each magnitude step but the
    last), `retrain_recipe` the final retraining; None leaves training out.

    (glob, value) pairs speak about single layers: `layers` the share that stays, `quality` a threshold in standard
    deviations, cut anew at every step; `sensitivity` is a scan, for the allocation or, with `max_loss`, to cut each
    layer as far as that. With one of these `ratio` may be 1: nothing more is asked.

    `score` rates what is cut (gradients over `score_batches` batches where it needs them); `recovery` heals every cut
    before it is retrained. `rescale_dropout`, `alternate` and `reinit` are Han's dropout rates, layers retrained by
    turns, and the control to surviving weights. `select_inputs` lets inputs of a fully connected first layer go.
    """

    ratio: float
    method: Literal["magnitude", "admm", "random"] = "admm"
    pattern: str = "channel"
    through_norm: ThroughNorm = "pin"
    of: Literal["params", "macs", "latency"] = "params"
    allocation: Literal["global", "uniform", "sensitivity", "latency"] = "global"
    steps: int = 1
    schedule: Literal["geometric", "cubic"] = "geometric"
    scope: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    floor: float = 0.05
    round_to: int = 0
    unit_share: float = 0.5
    admm: Admm = field(default_factory=Admm)
    prune_recipe: Recipe | None = None
    retrain_recipe: Recipe | None = None
    layers: tuple[tuple[str, float], ...] = ()
    quality: tuple[tuple[str, float], ...] = ()
    sensitivity: Sensitivity | None = None
    max_loss: float | None = None
    score: str = "l2"
    score_batches: int = 8
    recovery: Recovery = field(default_factory=Recovery)
    rescale_dropout: bool = False
    select_inputs: bool = False
    alternate: bool = False
    reinit: bool = False
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("--method", self.method, METHODS),
            ("--through-norm", self.through_norm, THROUGH_NORM),
            ("--of", self.of, ("params", "macs", "latency")),
            ("--allocation", self.allocation, ALLOCATIONS),
            ("--schedule", self.schedule, ("geometric", "cubic")),
            ("--score", self.score, CRITERIA),
        ):
            if value not in allowed:
                raise UsageError(f"{option} {value}: choose one of {', '.join(allowed)}")
        self._check_layers()
        if not (self.ratio > 1 or (self.ratio == 1 and self.decides_alone)) or not math.isfinite(self.ratio):
            raise UsageError(f"--ratio {self.ratio:g}: a ratio is dense ÷ kept and must be above 1")
        self._check_pattern()
        self._check_latency()
        if self.round_to < 0:
            raise UsageError(f"--round-to {self.round_to}: must be at least 1, or auto")
        for option, value in (("--steps", self.steps), ("--score-batches", self.score_batches)):
            if value < 1:
                raise UsageError(f"{option} {value}: must be at least 1")
        if self.score != "l2" and self.method != "magnitude":
            reason = {"admm": "projects onto the nearest weights, which is l2", "random": "does not score"}
            raise UsageError(
                f"--score {self.score}: --method {self.method} {reason[self.method]}; use it with --method magnitude"
            )
        if self.score in NEEDS_UNITS and self.pattern not in UNIT_PATTERNS:
            raise UsageError(
                f"--score {self.score}: rates whole filters; with --pattern {self.pattern} use l2, l1, taylor or fisher"
            )
        if self.select_inputs and self.parsed_pattern.units is None:
            raise UsageError(f"--select-inputs: inputs go as whole units; not with --pattern {self.pattern}")
        if not 0 <= self.unit_share <= 1:
            raise UsageError(f"--unit-share {self.unit_share:g}: must lie between 0 (columns) and 1 (units)")
        if not 0 <= self.floor < 1:
            raise UsageError(f"--floor {self.floor:g}: the share of each layer that always stays, from 0 to below 1")

    def _check_pattern(self) -> None:
        """What does not go with a pattern, and its usual spelling."""
        parsed = self.parsed_pattern
        object.__setattr__(self, "pattern", parsed.text)
        implied = parsed.implied_ratio
        if implied is not None:
            if abs(self.ratio - implied) > 1e-6 * implied:
                raise UsageError(
                    f"--pattern {parsed.text}: means --ratio {format_ratio(implied)} of the layers it fits; "
                    f"leave --ratio {format_ratio(self.ratio)} out"
                )
            if self.steps > 1 or self.admm.stages > 1:
                raise UsageError(f"--pattern {parsed.text}: has one ratio, so --steps and --stages must be 1")
        if self.round_to > 1 and not parsed.is_physical:
            raise UsageError(
                f"--round-to {self.round_to}: --pattern {parsed.text} changes no width; leave --round-to out"
            )

    def _check_latency(self) -> None:
        """Time is known of whole widths only, and it is either what is counted or what decides between equals."""
        asked = "--of latency" if self.of == "latency" else "--allocation latency"
        if "latency" in (self.of, self.allocation) and self.pattern not in UNIT_PATTERNS:
            raise UsageError(f"{asked}: measures widths; --pattern {self.pattern} changes none, use channel or filter")
        if self.of == self.allocation == "latency":
            raise UsageError("--of latency: already counts time; use it with --allocation global or uniform")

    @property
    def takes_time(self) -> bool:
        """Whether layers must be timed before anything can be chosen."""
        return "latency" in (self.of, self.allocation)

    @property
    def may_take_time(self) -> bool:
        """Whether there is anything that a stopwatch would be asked."""
        return self.takes_time or self.likes_widths

    @property
    def likes_widths(self) -> bool:
        """Whether widths are to be those that the runtime likes."""
        return self.round_to == 0 and self.parsed_pattern.units is not None

    @property
    def decides_alone(self) -> bool:
        """Whether layers are told what to keep, so that no ratio is needed."""
        return bool(self.layers or self.quality) or self.max_loss is not None

    def _check_layers(self) -> None:
        """What is said about single layers, and what it goes with."""
        for glob, share in self.layers:
            if not 0 < share <= 1:
                raise UsageError(f"--layer {glob}={share:g}: the share that stays, above 0, at most 1")
        for glob, threshold in self.quality:
            if not (threshold > 0 and math.isfinite(threshold)):
                raise UsageError(f"--quality {glob}={threshold:g}: in standard deviations of the layer, above 0")
        if self.quality and (self.method != "magnitude" or self.score != "l2" or self.ratio != 1):
            raise UsageError(
                "--quality: a threshold on weights; goes with --method magnitude --score l2, without --ratio"
            )
        if (self.allocation == "sensitivity" or self.max_loss is not None) != (self.sensitivity is not None):
            raise UsageError("--sensitivity: goes with --allocation sensitivity or with --max-loss")
        if self.max_loss is not None and not (self.max_loss >= 0 and self.ratio == 1):
            raise UsageError("--max-loss: 0 or more, and instead of --ratio")
        if self.sensitivity is not None:
            scanned = parse_pattern(self.sensitivity.pattern)
            if (scanned.units is None) != (self.parsed_pattern.units is None):
                raise UsageError(
                    f"--sensitivity: was measured with --pattern {scanned.text}, which says little about --pattern"
                    f" {self.pattern}; scan again with that pattern"
                )
        says = bool(self.layers or self.quality or self.sensitivity)
        if says and self.parsed_pattern.weights not in (None, "unstructured"):
            raise UsageError(
                "--layer, --quality, --sensitivity: count filters or single weights; --pattern"
                f" {self.pattern} cuts neither"
            )

    @property
    def parsed_pattern(self) -> Pattern:
        return parse_pattern(self.pattern)

    @property
    def walk(self) -> WalkOptions:
        """How the units are found."""
        return WalkOptions(keep_heads=self.parsed_pattern.units == "head", through_norm=self.through_norm)
