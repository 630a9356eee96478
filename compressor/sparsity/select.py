"""Patterns as selectors: tensors and a ratio in, masks out; it must never train or hold the run's state.

The same selector serves every method: magnitude gives it the weights, ADMM gives it W + U, and what comes back is in
both cases the Euclidean projection onto the nearest set of the pattern that meets the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from compressor.axes import Keep, UnitMap
from compressor.cost import mac_terms, macs_of_layers
from compressor.errors import PatternError, RatioError, UsageError
from compressor.program import CONTRACTIONS, Layer, Program, find_layers
from compressor.sparsity.allocation import Rules, choose_units, rank_scores
from compressor.sparsity.budget import Budget
from compressor.sparsity.masks import mask_units
from compressor.sparsity.scores import Scores, random_scores, score_units, score_weights
from compressor.units import format_ratio


@dataclass(frozen=True)
class Selection:
    """Masks and what they leave: `kept` ÷ `dense` in the unit of the budget. `keep` is None for single weights."""

    masks: dict[str, Tensor]
    dense: float
    kept: float
    keep: Keep | None

    @property
    def ratio(self) -> float:
        return self.dense / self.kept


class Selector(Protocol):
    """Chooses what stays under a pattern and a budget."""

    @property
    def dense(self) -> float:
        """Cost of everything in scope."""
        ...

    def select(self, tensors: Mapping[str, Tensor], ratio: float) -> Selection:
        """Masks over `tensors` at dense ÷ kept >= `ratio`. Raises: RatioError if that is not feasible."""
        ...

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep) -> float:
        """What masks leave, counted as the budget counts: by whole units (`keep`) or by single weights."""
        ...


@dataclass(frozen=True)
class Choice:
    """What a selector is made for: pattern, unit of the budget, layers, and how scores are compared."""

    pattern: str
    of: str = "params"
    allocation: str = "global"
    scope: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    floor: float = 0.05
    round_to: int = 1
    score: str = "magnitude"
    seed: int = 0


def make_selector(program: Program, units: UnitMap, choice: Choice) -> Selector:
    """The selector of a pattern.

    Raises:  UsageError if --scope or --keep name no layer; PatternError if nothing in scope can be pruned.
    """
    layers = find_layers(program)
    scoped = _matching(layers, choice.scope, "--scope")
    kept = _matching(layers, choice.keep, "--keep") if choice.keep else set()
    everything = scoped == {layer.name for layer in layers}
    if choice.pattern == "unstructured":
        return _weight_selector(program, layers, scoped, kept, choice)
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


def _matching(layers: Sequence[Layer], globs: Sequence[str], option: str) -> set[str]:
    names = {layer.name for layer in layers}
    found: set[str] = set()
    for glob in globs:
        hits = {name for name in names if fnmatchcase(name, glob)}
        if not hits:
            known = ", ".join(sorted(names)[:6]) + (" …" if len(names) > 6 else "")
            raise UsageError(f"{option} {glob}: matches no layer; layers are {known}")
        found |= hits
    return found


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


def _weight_selector(
    program: Program, layers: Sequence[Layer], scoped: set[str], kept: set[str], choice: Choice
) -> WeightSelector:
    parameters = program.parameters
    price = {term.owner: term.coefficient for term in mac_terms(program)}
    prices: dict[str, float] = {}
    for layer in layers:
        if layer.kind in CONTRACTIONS and layer.name in scoped - kept and layer.weight in parameters:
            prices[layer.weight] = price[layer.node] if choice.of == "macs" else 1.0
    if not prices:
        raise PatternError("--pattern unstructured: no convolution or linear weight in scope")
    if choice.of == "macs":
        nodes = {layer.node: layer.name for layer in layers}
        everything = scoped == set(nodes.values())
        macs = macs_of_layers(program)
        dense = float(sum(n for node, n in macs.items() if everything or nodes.get(node) in scoped))
    else:
        owners = {tensor for layer in layers if layer.name in scoped for tensor in layer.tensors}
        dense = float(sum(p.numel() for name, p in parameters.items() if name in owners))
    return WeightSelector(prices, dense, choice)


@dataclass(frozen=True)
class WeightSelector:
    """Single weights: pattern `unstructured`. `prices` is what one weight of each tensor costs in the budget."""

    prices: Mapping[str, float]
    dense: float
    choice: Choice

    def select(self, tensors: Mapping[str, Tensor], ratio: float) -> Selection:
        names = list(self.prices)
        sizes = [tensors[name].numel() for name in names]
        scores = np.concatenate([self._scores(tensors[name], i) for i, name in enumerate(names)])
        prices = np.repeat([self.prices[name] for name in names], sizes)
        order = np.argsort(-scores, kind="stable")
        fixed = self.dense - float(prices.sum())
        spent = fixed + np.cumsum(prices[order])
        n_kept = int(np.searchsorted(spent, self.dense / ratio * (1 + 1e-12), side="right"))
        if n_kept < len(names):
            largest = self.dense / (fixed + float(prices[order[: len(names)]].sum()))
            raise RatioError(
                f"--ratio {format_ratio(ratio)}: the largest feasible is {format_ratio(largest)}; biases and"
                f" normalisation ({fixed:,.0f} of {self.dense:,.0f}) are not pruned by `unstructured`"
            )
        keep = np.zeros(len(scores), dtype=bool)
        keep[order[:n_kept]] = True
        parts = np.split(keep, np.cumsum(sizes)[:-1])
        masks = {
            name: torch.from_numpy(part).reshape(tensors[name].shape) for name, part in zip(names, parts, strict=True)
        }
        return Selection(masks, self.dense, float(spent[n_kept - 1]), None)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep) -> float:
        cut = sum(price * int((~masks[name]).sum()) for name, price in self.prices.items() if name in masks)
        return self.dense - cut

    def _scores(self, weight: Tensor, position: int) -> Scores:
        if self.choice.score == "random":
            return random_scores(weight.numel(), self.choice.seed + position)
        if self.choice.allocation == "uniform":
            magnitudes = weight.detach().abs().flatten().cpu().numpy().astype(np.float64)
            places = np.empty(len(magnitudes))
            places[np.argsort(magnitudes, kind="stable")] = np.arange(len(magnitudes))
            return places / len(magnitudes)
        return score_weights(weight)
