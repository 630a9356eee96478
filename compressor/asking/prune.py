"""Everything `prune` is asked for, checked when it is made; it must never hold results."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from compressor.asking.admm import Admm
from compressor.asking.globs import read_globs
from compressor.asking.option import at_least, check, from_below, from_to, group, option
from compressor.asking.panels import EXPERIMENTS, HOW, HOW_MUCH, LAYERS
from compressor.asking.pattern import PATTERN_FORMS, Pattern, parse_pattern, read_pattern
from compressor.asking.recipe import Recipe
from compressor.asking.recovery import Healing
from compressor.asking.rounding import MEASURED, read_multiple
from compressor.asking.scan import Sensitivity, load_sensitivity
from compressor.asking.score import MEASURED_SCORES, NEEDS_INPUTS, NEEDS_UNITS, OUTPUT, ROUTING, Score
from compressor.asking.walk import ThroughNorm, WalkOptions
from compressor.errors import UsageError
from compressor.units import format_ratio, parse_ratio, parse_share, ratio_from_sparsity

Method = Literal["admm", "group-lasso", "magnitude", "random"]
Of = Literal["params", "macs", "latency"]
Allocation = Literal["global", "uniform", "sensitivity", "latency"]
Course = Literal["geometric", "cubic"]

Rates = Literal["magnitude", "filter", "reader", "random"]
"""What a selector compares: every slice that goes with a unit, the filters themselves, what reads them, or nothing."""

METHODS: tuple[Method, ...] = get_args(Method)
SEARCHING = ("admm", "group-lasso")
"""Methods that draw the weights towards the ratio before they cut."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What may go, counted how, spread how: the part of a request that a selector is made for.

    `of` is the unit of the budget over the layers in `scope`: params, MACs or latency. Time is what a stopwatch
    measures for each layer; with `allocation="latency"` it decides between widths that cost the same. Layers keep a
    multiple of `round_to` filters; with 0 whole units leave widths that the runtime likes, as a stopwatch finds or as
    is usual, and 1 leaves them as the scores have it. `unit_share` is the part of the ratio that whole units carry
    where columns are cut as well, as a power: of 16x at 1/2, 4x; or that blocks carry, where widths are. `through_norm`
    says whether units that pass a mean or a variance may go (`WalkOptions`). `uniform` ties units over the layers, as a
    configuration of transformers says their widths.

    `pattern` may be given as text and is a `Pattern` from then on.

    (glob, value) pairs speak about single layers: `layers` the share that stays, `quality` a threshold in standard
    deviations, cut anew at every step; `sensitivity` is a scan, for the allocation or, with `max_loss`, to cut each
    layer as far as that.

    Raises:  UsageError for a value out of range, and for values that do not go together.
    """

    of: Of = option("params", "What the ratio counts: weights, work, or each layer's measured time.", panel=HOW_MUCH)
    scope: tuple[str, ...] = option(
        ("*",), "Layers that the ratio is over; repeat. Default: all.", metavar="GLOB", panel=HOW_MUCH, repeat=True
    )
    keep: tuple[str, ...] = option(
        (), "Layers that nothing may be cut from; repeat.", metavar="GLOB", panel=HOW_MUCH, repeat=True
    )
    floor: float = option(
        0.05, "Share of every layer that always stays.", metavar="SHARE", panel=HOW_MUCH, range=from_below(0, 1)
    )
    round_to: int = option(
        MEASURED,
        "Keep a multiple of N filters in every layer, 1 for any number; auto: what is measured to be fast.",
        metavar="N", panel=HOW_MUCH, read=read_multiple, shown="auto",
    )  # fmt: skip
    unit_share: float = option(
        0.5,
        "Of filter+shape: how much of the ratio, as a power, whole units carry; columns carry the rest. Of "
        "layer+channel, expert+channel: how much blocks or experts carry.",
        metavar="SHARE", panel=EXPERIMENTS, range=from_to(0, 1),
    )  # fmt: skip
    allocation: Allocation = option(
        "global",
        "How the budget is spread over layers; latency: so that the weights that are left run fastest.",
        panel=HOW_MUCH,
    )
    pattern: Pattern = option(
        parse_pattern("channel"),
        "What goes together: channel (coupled units), filter, head, layer (residual blocks), layer+channel, expert (of "
        "a mixture), expert+channel, shape (channel and position, of all filters; shape:channel, shape:position), "
        "filter+shape, channel+shape, unstructured, 2:4 (any N:M), block:4x4.",
        metavar="PATTERN", panel=HOW, flags=("-p",), read=parse_pattern, shown="channel", texts=lambda: PATTERN_FORMS,
    )  # fmt: skip
    through_norm: ThroughNorm = option(
        "pin",
        "Units that pass a mean or a variance (the residual stream of a transformer): stay; go, and the norm "
        "keeps its divisor (compact = masked); go, and the norm is rescaled (retrain after compact).",
        panel=HOW,
    )
    uniform: bool = option(
        False,
        "Cut the same from every layer, in widths that a configuration of transformers can say: what `compress export "
        "--format huggingface` needs.",
        panel=HOW,
    )
    layers: tuple[tuple[str, float], ...] = option(
        (),
        "Share of these layers that stays, as conv1=0.66; repeat. With --ratio the rest shares what is left.",
        name="layer", metavar="GLOB=SHARE", panel=LAYERS, repeat=True,
        read=read_globs("--layer", "conv1=0.66"),
    )  # fmt: skip
    quality: tuple[tuple[str, float], ...] = option(
        (),
        "Cut what is below Q standard deviations of its layer, again in every step; repeat. Needs no --ratio.",
        metavar="[GLOB=]Q", panel=LAYERS, repeat=True,
        read=read_globs("--quality", "0.8, or conv*=0.5", alone="*"),
    )  # fmt: skip
    sensitivity: Sensitivity | None = option(
        None,
        "What `compress analyze --sensitivity -o FILE` found.",
        metavar="FILE", panel=LAYERS, read=load_sensitivity,
    )  # fmt: skip
    max_loss: float | None = option(
        None,
        "Cut each layer until the scan says that it loses X. Needs no --ratio.",
        metavar="X", panel=LAYERS, range=at_least(0),
    )  # fmt: skip
    seed: int = 0

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "pattern", read_pattern(self.pattern))
        self._check_pattern()
        self._check_latency()
        self._check_layers()

    def _check_pattern(self) -> None:
        if self.round_to < 0:
            raise UsageError(f"--round-to {self.round_to}: must be at least 1, or auto")
        if self.round_to > 1 and not (self.pattern.is_physical and (self.pattern.units or self.pattern.weights)):
            raise UsageError(
                f"--round-to {self.round_to}: --pattern {self.pattern} changes no width; leave it out, or use"
                " --pattern channel"
            )

        if self.uniform and self.pattern.weights is not None:
            raise UsageError(
                f"--uniform: --pattern {self.pattern} leaves zeros or columns; use channel, filter, head, expert or"
                " layer"
            )
        if self.uniform and self.pattern.blocks and self.pattern.units is not None:
            raise UsageError(
                f"--uniform: --pattern {self.pattern} cuts widths of a network that no configuration says yet\n"
                "cut layers first, with --pattern layer -o NAME/, and then widths of what that wrote"
            )

    def _check_latency(self) -> None:
        """Time is known of whole widths only, and it is either what is counted or what decides between equals."""
        asked = "--of latency" if self.of == "latency" else "--allocation latency"
        if "latency" in (self.of, self.allocation) and not self.pattern.is_width:
            raise UsageError(f"{asked}: measures widths; --pattern {self.pattern} changes none, use channel or filter")
        if self.of == self.allocation == "latency":
            raise UsageError("--of latency: already counts time; use it with --allocation global or uniform")

    def _check_layers(self) -> None:
        """What is said about single layers, and what it goes with."""
        for glob, share in self.layers:
            if not 0 < share <= 1:
                raise UsageError(f"--layer {glob}={share:g}: the share that stays, above 0, at most 1")
        for glob, threshold in self.quality:
            if not (threshold > 0 and math.isfinite(threshold)):
                raise UsageError(f"--quality {glob}={threshold:g}: in standard deviations of the layer, above 0")
        asks_for_scan = self.allocation == "sensitivity" or self.max_loss is not None
        if asks_for_scan and self.sensitivity is None:
            asked = "--max-loss" if self.max_loss is not None else "--allocation sensitivity"
            raise UsageError(
                f"{asked}: needs a scan; make one with `compress analyze MODEL --sensitivity -o scan.json`"
                " and give --sensitivity scan.json"
            )
        if self.sensitivity is not None:
            self._check_scan(self.sensitivity, asks_for_scan)
        says = bool(self.layers or self.quality or self.sensitivity)
        if says and (self.pattern.is_deep or self.pattern.weights not in (None, "unstructured")):
            asked = "--layer" if self.layers else "--quality" if self.quality else "--sensitivity"
            raise UsageError(
                f"{asked}: counts filters or single weights, and --pattern {self.pattern} cuts neither; leave it out,"
                " or use --pattern channel or unstructured"
            )

    def _check_scan(self, scan: Sensitivity, asked: bool) -> None:
        if not asked:
            raise UsageError("--sensitivity: goes with --allocation sensitivity or with --max-loss")
        scanned = parse_pattern(scan.pattern)
        if (scanned.units is None) != (self.pattern.units is None):
            raise UsageError(
                f"--sensitivity: was measured with --pattern {scanned.text}, which says little about --pattern"
                f" {self.pattern}; scan again with that pattern"
            )

    @property
    def decides_alone(self) -> bool:
        """Whether layers are told what to keep, so that no ratio is needed."""
        return bool(self.layers or self.quality) or self.max_loss is not None

    @property
    def rates(self) -> Rates:
        """What a selector compares."""
        return "magnitude"

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
        return self.round_to == MEASURED and self.pattern.units is not None

    @property
    def walk(self) -> WalkOptions:
        """How the units are found."""
        return WalkOptions(keep_heads=self.pattern.units == "head" or self.uniform, through_norm=self.through_norm)


def _read_sparsity(text: str) -> float:
    return parse_share(text, "--sparsity")


@dataclass(frozen=True, kw_only=True)
class PruneSettings(Cut, Healing):
    """Everything `prune` is asked for: what is cut (`Cut`), how much, by which method, and how it is healed.

    `ratio` is dense ÷ kept of the compacted model; `sparsity` says the same as a removed share. A pattern with a ratio
    of its own needs neither, nor does a cut that tells layers what to keep: then the ratio is 1 and nothing more is
    asked. `prune_recipe` is the training while the structure is being found (the ADMM epochs, or each magnitude step
    but the last), `stage_recipe` the masked retraining after every stage but the last, `retrain_recipe` the final one;
    None leaves training out.

    `score` rates what is cut (by gradients or inputs over `score_batches` batches); `recovery` heals every cut
    before it is retrained. `rescale_dropout`, `alternate` and `reinit` are Han's dropout rates, layers retrained in
    turn, and the control to surviving weights. `select_inputs` lets inputs of a fully connected first layer go.
    """

    ratio: float = option(
        None,
        "Dense ÷ kept of the compacted model; or the share that goes, as 92%. Several, as 2x,4x,8x: each from MODEL, "
        "into a folder.",
        flags=("-r",),
        metavar="13x",
        panel=HOW_MUCH,
        read=parse_ratio,
    )
    sparsity: float | None = option(
        None, "The same as a removed share, 0.923 or 92.3%.", metavar="92.3%", panel=HOW_MUCH,
        read=_read_sparsity,
    )  # fmt: skip
    method: Method = option("admm", "How to choose what is cut.", flags=("-m",), panel=HOW)
    steps: int = option(1, "Prune-retrain rounds of magnitude and random.", metavar="N", panel=HOW, range=at_least(1))
    schedule: Course = option("geometric", "Course of the ratio over the steps.", panel=EXPERIMENTS)
    admm: Admm = group(Admm)
    score: Score = option(
        None,
        "What magnitude rates by: weights (l2, l1), loss (taylor, fisher), weights times their inputs (activation: "
        "Wanda), scale of batch norm (bn), distance to the layer's other filters (fpgm); of layer, what the output "
        "loses (output); of expert, what is sent to it (routing).",
        panel=HOW, shown="l2, output with layer, routing with expert",
    )  # fmt: skip
    score_batches: int = option(
        8,
        "Training batches for the gradients of taylor and fisher, and for activation.",
        metavar="N",
        panel=EXPERIMENTS,
        range=at_least(1),
    )
    select_inputs: bool = option(False, "Cut inputs of a fully connected first layer (pixels), too.", panel=HOW)
    rescale_dropout: bool = option(False, "Scale dropout rates by the root of the connections kept.", panel=EXPERIMENTS)
    reinit: bool = option(
        False, "Retrain from fresh weights: the control for keeping the values that survive.", panel=EXPERIMENTS
    )
    prune_recipe: Recipe | None = None
    stage_recipe: Recipe | None = None
    retrain_recipe: Recipe | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "ratio", self._asked_ratio())
        object.__setattr__(self, "sparsity", None)
        if not self.score:
            measured = OUTPUT if self.pattern.blocks else ROUTING if self.pattern.experts else "l2"
            object.__setattr__(self, "score", "l2" if self.method == "random" else measured)
        self._check_ratio()
        self._check_score()
        if self.select_inputs and self.pattern.units is None:
            raise UsageError(
                f"--select-inputs: inputs go as whole units, and --pattern {self.pattern} cuts none; leave it out, or"
                " use --pattern channel or filter"
            )

    def _asked_ratio(self) -> float:
        """Dense ÷ kept, from the one of ratio and sparsity that was given; what a pattern implies, or 1, from none.

        Raises:  UsageError if both or neither were given.
        """
        ratio: Any = self.ratio  # None until it is known
        if ratio is not None and self.sparsity is None:
            return float(ratio)
        if ratio is None and self.sparsity is not None:
            return ratio_from_sparsity(self.sparsity)
        if ratio is None and self.pattern.implied_ratio is not None:
            return self.pattern.implied_ratio
        if ratio is None and self.decides_alone:
            return 1.0
        raise UsageError("give exactly one of --ratio (13x: dense ÷ kept) and --sparsity (0.923: the removed share)")

    def _check_ratio(self) -> None:
        if not (self.ratio > 1 or (self.ratio == 1 and self.decides_alone)) or not math.isfinite(self.ratio):
            raise UsageError(f"--ratio {self.ratio:g}: a ratio is dense ÷ kept and must be above 1")
        if self.max_loss is not None and self.ratio != 1:
            raise UsageError(f"--max-loss {self.max_loss:g}: stands instead of --ratio; leave one of them out")
        implied = self.pattern.implied_ratio
        if implied is None:
            return
        if abs(self.ratio - implied) > 1e-6 * implied:
            raise UsageError(
                f"--pattern {self.pattern}: means --ratio {format_ratio(implied)} of the layers it fits; "
                f"leave --ratio {format_ratio(self.ratio)} out"
            )
        if self.steps > 1 or self.admm.stages > 1:
            asked = f"--steps {self.steps}" if self.steps > 1 else f"--stages {self.admm.stages}"
            raise UsageError(
                f"{asked}: approaches a ratio, and --pattern {self.pattern} has only one,"
                f" {format_ratio(implied)}; leave it out"
            )

    def _check_score(self) -> None:
        if self.method == "group-lasso" and not self.pattern.is_width:
            raise UsageError(
                f"--method group-lasso: draws the units of widths; with --pattern {self.pattern} use --method admm"
            )
        if self.score == OUTPUT and not self.pattern.blocks:
            raise UsageError(
                f"--score output: says what is lost with a residual block, and --pattern {self.pattern} cuts none; use"
                " --pattern layer"
            )
        if self.score == ROUTING and not self.pattern.experts:
            raise UsageError(
                f"--score routing: says what is sent to an expert, and --pattern {self.pattern} cuts none; use"
                " --pattern expert"
            )
        if self.quality and (self.method != "magnitude" or self.score != "l2" or self.ratio != 1):
            raise UsageError(
                "--quality: a threshold on weights; goes with --method magnitude --score l2, without --ratio"
            )
        is_drawn = self.score in MEASURED_SCORES and self.method == "admm"
        is_free = is_drawn or self.chooses_by_outputs  # then a score says how much of each layer goes
        if self.score != "l2" and self.method != "magnitude" and not is_free:
            draws = "draws to 0 what weighs least, which is l2"
            reason = {"admm": draws, "group-lasso": draws, "random": "does not score"}
            raise UsageError(
                f"--score {self.score}: --method {self.method} {reason[self.method]}; use it with --method magnitude"
            )
        if self.score in NEEDS_UNITS and not self.pattern.is_width:
            raise UsageError(
                f"--score {self.score}: rates whole filters; with --pattern {self.pattern} use l2, l1, taylor or fisher"
            )

    @property
    def rates(self) -> Rates:
        """What a selector compares, by method and score."""
        if self.method == "random":
            return "random"
        if self.score in NEEDS_INPUTS:
            return "reader"
        return "filter" if self.score in NEEDS_UNITS else "magnitude"

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Of all trainings that were asked for."""
        return tuple(r for r in (self.prune_recipe, self.stage_recipe, self.retrain_recipe) if r is not None)

    @property
    def searches(self) -> bool:
        """Whether the structure is found by training, not by one cut."""
        return self.method in SEARCHING or self.steps > 1

    @property
    def chooses_by_outputs(self) -> bool:
        """Whether ADMM has no training to find the structure by but outputs to fit: then each layer finds its own."""
        searches = self.method != "admm" or self.prune_recipe is not None
        return not searches and self.recovery.reconstruct > 0 and not self.pattern.is_physical

    def untrained(self) -> PruneSettings:
        """The same without any training."""
        return replace(self, prune_recipe=None, stage_recipe=None, retrain_recipe=None)
