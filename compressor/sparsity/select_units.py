"""Whole units as the thing to choose: patterns `filter`, `channel`, `head`, `expert`.

It must never look at single weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compressor.asking.pattern import UnitKind
from compressor.axes import Keep, UnitMap
from compressor.errors import PatternError, RatioError
from compressor.program import CONTRACTIONS, Layer, Program
from compressor.program.gather import index_name
from compressor.sparsity.allocation import Rules, choose_units, rank_scores
from compressor.sparsity.budget import Budget
from compressor.sparsity.by_layer import Demands, demand_units, find_demands, producers
from compressor.sparsity.choice import Choice, Selection
from compressor.sparsity.closest import Closeness, choose_liked
from compressor.sparsity.fastest import WidthSearch, keep_widths
from compressor.sparsity.latency import LatencyBudget, untimed
from compressor.sparsity.likes import FilledWork, Likes, find_likes, steps_of
from compressor.sparsity.masks import kept_units, mask_units
from compressor.sparsity.scores import Scores, random_scores, score_units


def unit_selector(
    program: Program, units: UnitMap, layers: Sequence[Layer], scoped: set[str], kept: set[str], choice: Choice,
    kind: UnitKind | Literal["expert"],
) -> UnitSelector:  # fmt: skip
    """The selector over units that some layer in `scoped` produces and no layer in `kept` does.

    Raises:  PatternError if nothing in scope can be pruned.
    """
    budget: Budget | LatencyBudget = budget_of(program, units, layers, scoped, choice)
    latency = None
    if choice.stopwatch is not None and "latency" in (choice.asked.of, choice.asked.allocation):
        latency = LatencyBudget.measured(program, units, choice.stopwatch, scoped)
        budget = latency if choice.asked.of == "latency" else budget
    free = free_units(units, layers, scoped, kept)
    free &= units.heads if kind == "head" else units.experts if kind == "expert" else ~units.experts
    if not free.any():
        raise PatternError(f"--pattern {choice.asked.pattern}: nothing in scope can be pruned; {units.way_out}")
    members = tuple(members for _, members in units.widths)
    multiple = 1 if kind == "expert" else max(choice.asked.round_to, 1)
    steps = steps_of(units, layers, multiple)
    rules = Rules(units.group_of, free, choice.asked.floor, steps, members, least=units.choices, multiple=multiple)
    demands = find_demands(choice, layers, producers(units, layers, rules))
    is_exact = kind == "expert" or choice.asked.round_to > 0
    likes = None if is_exact else find_likes(program, units, choice.preferences)
    work = None if is_exact else FilledWork.of(program, units, choice.preferences)
    counts = _slice_choice(units, layers, kind, choice.asked.rates)
    return UnitSelector(program, units, budget, rules, choice, counts, demands, latency, likes, work)


def _hint(units: UnitMap) -> str:
    """What would let more go, where norms are what pins."""
    pinned = sum("(--through-norm)" in pin.reason for pin in units.pin_at.values())
    return f"\nnorms pin {pinned} axes of tensors; --through-norm exact lets them go" if pinned else ""


def budget_of(program: Program, units: UnitMap, layers: Sequence[Layer], scoped: set[str], choice: Choice) -> Budget:
    """What `choice` counts, over the layers in scope (over every operator where that is all of them)."""
    everything = scoped == {layer.name for layer in layers}
    measure = Budget.of_macs if choice.asked.of == "macs" else Budget.of_params
    return measure(program, units, None if everything else scoped)


def free_units(units: UnitMap, layers: Sequence[Layer], scoped: set[str], kept: set[str]) -> Keep:
    """Units that some layer in scope produces and no kept layer does; units without a producer follow their readers.

    The one answer for what `analyze` offers and what a pattern may take; a unit that is all of its width stays.
    """
    owned = _owned(units, layers)
    nobodys = ~owned.any(0) if len(layers) else np.ones(units.n_units, dtype=bool)
    produced = np.zeros(units.n_units, dtype=bool)
    protected = np.zeros(units.n_units, dtype=bool)
    for layer, own in zip(layers, owned, strict=True):
        mine = own | (nobodys & _touched(units, layer.tensors))
        if layer.name in scoped:
            produced |= mine
        if layer.name in kept:
            protected |= mine
    free = (produced | _selected(units, layers, scoped)) & ~(protected | _selected(units, layers, kept))
    return free & ~_alone(units)


def _owned(units: UnitMap, layers: Sequence[Layer]) -> NDArray[np.bool_]:
    """Which units lie along the filters of which layer. Shapes: -> (n_layers, n_units)"""
    found = np.zeros((len(layers), units.n_units + 1), dtype=bool)
    for row, layer in zip(found, layers, strict=True):
        of_index = units.axes.get((layer.weight, layer.out_dim))
        if of_index is not None:
            row[of_index] = True
    return found[:, :-1]


def _touched(units: UnitMap, tensors: Sequence[str]) -> Keep:
    """Units along any axis of these tensors: experts, codes and modulated weights have several."""
    found = np.zeros(units.n_units + 1, dtype=bool)
    for (name, _), of_index in units.axes.items():
        if name in tensors:
            found[of_index] = True
    return found[:-1]


def _alone(units: UnitMap) -> Keep:
    """Units without another one in their group or along some dimension: one of each stays."""
    found = np.bincount(units.group_of, minlength=1)[units.group_of] == 1 if units.n_units else np.zeros(0, dtype=bool)
    for _, members in units.widths:
        if len(members) == 1:
            found[members] = True
    return found


def _selected(units: UnitMap, layers: Sequence[Layer], names: set[str]) -> Keep:
    """Units of input positions that these layers select for themselves: nothing produces them."""
    found = np.zeros(units.n_units, dtype=bool)
    for layer in layers:
        of_index = units.axes.get((index_name(layer), 0)) if layer.name in names else None
        if of_index is not None:
            found[of_index[of_index >= 0]] = True
    return found


def _slice_choice(units: UnitMap, layers: Sequence[Layer], kind: str, score: str) -> Callable[[str, int], bool]:
    """`filter` looks at the filters' own weights only, `channel` and `head` at everything that goes with them.

    What no filter produces (a hidden unit of an LSTM, a feature of an embedding) has its own weights in what does.
    A selected input's own weights are its column of the layer that selects it. A score of whole filters says nothing
    about the slices of the layers that read them, whatever the pattern; batch norms have filters, too. A score by what
    reaches a weight says of the layers that read a unit what they lose, and of the one that makes it nothing of that:
    slices of readers count alone, and for a unit that no weight reads all that it has.
    """
    if score == "filter":
        every = {(layer.weight, layer.out_dim) for layer in layers}
        return lambda name, dim: (name, dim) in every
    if kind in ("channel", "head", "expert"):
        return _of_readers(units, layers) if score == "reader" else lambda name, dim: True
    own = {(layer.weight, layer.out_dim) for layer in layers if layer.kind in CONTRACTIONS}
    of_filters = np.zeros(units.n_units + 1, dtype=bool)
    for axis in own & units.axes.keys():
        of_filters[units.axes[axis]] = True
    of_filters[-1] = True  # pinned
    others = {(layer.weight, layer.out_dim) for layer in layers} & units.axes.keys()
    own |= {axis for axis in others if not of_filters[units.axes[axis]].all()}
    own |= {
        (layer.weight, layer.in_dim)
        for layer in layers
        if layer.in_dim is not None and (index_name(layer), 0) in units.axes
    }
    return lambda name, dim: (name, dim) in own


def _of_readers(units: UnitMap, layers: Sequence[Layer]) -> Callable[[str, int], bool]:
    reads = {(layer.weight, layer.in_dim) for layer in layers if layer.kind in CONTRACTIONS}
    read = np.zeros(units.n_units + 1, dtype=bool)
    read[-1] = True  # pinned
    for axis in units.axes.keys() & reads:
        read[units.axes[axis]] = True
    return lambda name, dim: (name, dim) in reads or not read[units.axes[name, dim]].all()


@dataclass(frozen=True)
class UnitSelector:
    """Whole units: patterns `filter`, `channel`, `head` and `expert`."""

    program: Program
    units: UnitMap
    budget: Budget | LatencyBudget
    rules: Rules
    choice: Choice
    counts: Callable[[str, int], bool]
    demands: Demands = field(default_factory=Demands)
    latency: LatencyBudget | None = None
    likes: Likes | None = None
    work: FilledWork | None = None

    @property
    def dense(self) -> float:
        return self.budget.dense

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.latency is None else untimed(self.program)

    def select(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor] | None = None
    ) -> Selection:
        ranked, rules = self.ranking(tensors, masks or {})
        keep = self.choose(ranked, rules, ratio)
        if self.choice.asked.allocation == "latency":
            keep = self._fastest(ranked, rules, keep, self.dense / ratio)
        return Selection(
            mask_units(self.program.module, self.units, keep), self.dense, self.budget.cost(keep), keep
        )  # fmt: skip

    def choose(self, ranked: Scores, rules: Rules, ratio: float) -> Keep:
        """The units to keep, in widths of the kind that was asked for. Shapes: (n_units,) -> (n_units,)"""
        try:
            if self.likes is None or self.work is None:
                return choose_units(ranked, rules, self.budget.cost, self.dense, ratio)
            closeness = Closeness(self.budget.cost, self.work.at, self.dense / ratio, rules.group)
            return choose_liked(ranked, rules, self.likes, closeness, self.dense, ratio)
        except RatioError as error:
            raise RatioError(f"{error}{_hint(self.units)}") from error

    def _fastest(self, ranked: Scores, rules: Rules, keep: Keep, target: float) -> Keep:
        """As many weights as `keep`, in the widths that take the least time. Shapes: (n_units,) -> (n_units,)"""
        if self.latency is None or not isinstance(self.budget, Budget):
            return keep
        start = np.bincount(rules.group[keep], minlength=rules.n_groups)
        if self.likes is not None:
            rules = replace(rules, step=self.likes.steps(rules.sizes))
        widths = WidthSearch(rules, self.budget, self.latency).fastest(start, target)
        found = keep_widths(ranked, rules, widths)
        return found if self.budget.cost(found) <= target else keep

    def ranking(self, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[Scores, Rules]:
        """Scores that can be compared between layers, and the rules with what the masks cut already.

        Shapes:  -> (n_units,)
        """
        scores, rules = self._scores(tensors, masks), self.rules
        if masks:
            gone = ~kept_units(self.units, masks, self.program.parameters)
            scores, rules = np.where(gone, 0.0, scores), replace(rules, gone=gone)
        ranked = rank_scores(scores, rules, self.choice.asked.allocation, self.choice.asked.of)
        return demand_units(ranked, scores, rules, self.demands) if self.demands else (ranked, rules)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep) -> float:
        return self.budget.cost(keep)

    def _scores(self, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Scores:
        if self.choice.asked.rates == "random":
            return random_scores(self.units.n_units, self.choice.asked.seed)
        if self.choice.routed is not None and (self.rules.free <= self.units.experts).all():
            return routed_scores(self.units, self.choice.routed)
        return score_units(self.units, tensors, self.counts, masks)


def routed_scores(units: UnitMap, routed: Mapping[str, Sequence[float]]) -> Scores:
    """What was measured of each expert; of several that are one unit, the mean. Shapes: -> (n_units,)"""
    total, n = np.zeros(units.n_units + 1), np.zeros(units.n_units + 1)
    for weight, scores in routed.items():
        of_index = units.axes[weight, 0]
        np.add.at(total, of_index, scores)
        np.add.at(n, of_index, 1)
    return (total / np.maximum(n, 1))[:-1]
