"""Whole units as the thing to choose: patterns `filter`, `channel` and `head`; it must never look at single weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from compressor.axes import Keep, UnitMap
from compressor.errors import PatternError
from compressor.program import CONTRACTIONS, Layer, Program
from compressor.sparsity.allocation import Rules, choose_units, rank_scores
from compressor.sparsity.budget import Budget
from compressor.sparsity.choice import Choice, Selection
from compressor.sparsity.masks import mask_units
from compressor.sparsity.scores import Scores, random_scores, score_units


def unit_selector(
    program: Program, units: UnitMap, layers: Sequence[Layer], scoped: set[str], kept: set[str], choice: Choice
) -> UnitSelector:
    """The selector over units that some layer in `scoped` produces and no layer in `kept` does.

    Raises:  PatternError if nothing in scope can be pruned.
    """
    everything = scoped == {layer.name for layer in layers}
    measure = Budget.of_macs if choice.of == "macs" else Budget.of_params
    budget = measure(program, units, None if everything else scoped)
    free = _free_units(units, layers, scoped, kept)
    if choice.pattern == "head":
        free &= units.heads
    if not free.any():
        raise PatternError(
            f"--pattern {choice.pattern}: nothing in scope can be pruned;"
            " `compress analyze` says what is pinned and why"
        )
    group = np.zeros(units.n_units, dtype=np.int64)
    for number, members in enumerate(units.groups):
        group[list(members)] = number
    rules = Rules(group, free, choice.floor, choice.round_to, tuple(members for _, members in units.widths))
    return UnitSelector(program, units, budget, rules, choice, _slice_choice(layers, choice.pattern))


def _free_units(units: UnitMap, layers: Sequence[Layer], scoped: set[str], kept: set[str]) -> Keep:
    """Units that some layer in scope produces and no kept layer does; units without a producer follow their readers."""
    produced = np.zeros(units.n_units, dtype=bool)
    protected = np.zeros(units.n_units, dtype=bool)
    for layer in layers:
        of_index = units.axes.get((layer.weight, layer.out_dim))
        if of_index is None:
            continue
        mine = of_index[of_index >= 0]
        if layer.name in scoped:
            produced[mine] = True
        if layer.name in kept:
            protected[mine] = True
    return produced & ~protected


def _slice_choice(layers: Sequence[Layer], pattern: str) -> Callable[[str, int], bool]:
    """`filter` looks at the filters' own weights only, `channel` and `head` at everything that goes with them."""
    if pattern in ("channel", "head"):
        return lambda name, dim: True
    own = {(layer.weight, layer.out_dim) for layer in layers if layer.kind in CONTRACTIONS}
    return lambda name, dim: (name, dim) in own


@dataclass(frozen=True)
class UnitSelector:
    """Whole units: patterns `filter`, `channel` and `head`."""

    program: Program
    units: UnitMap
    budget: Budget
    rules: Rules
    choice: Choice
    counts: Callable[[str, int], bool]

    @property
    def dense(self) -> float:
        return self.budget.dense

    def select(self, tensors: Mapping[str, Tensor], ratio: float) -> Selection:
        ranked = rank_scores(self._scores(tensors), self.rules, self.choice.allocation, self.choice.of)
        keep = choose_units(ranked, self.rules, self.budget.cost, self.dense, ratio)
        masks = mask_units(self.program.module, self.units, keep)
        return Selection(masks, self.dense, self.budget.cost(keep), keep)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep) -> float:
        return self.budget.cost(keep)

    def _scores(self, tensors: Mapping[str, Tensor]) -> Scores:
        if self.choice.score == "random":
            return random_scores(self.units.n_units, self.choice.seed)
        return score_units(self.units, tensors, self.counts)
