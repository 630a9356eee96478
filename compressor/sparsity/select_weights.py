"""Single weights as the thing to choose: pattern `unstructured`; it must never know what a unit is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.axes import Keep
from compressor.cost import mac_terms, macs_of_layers
from compressor.errors import PatternError, RatioError
from compressor.program import CONTRACTIONS, Layer, Program
from compressor.sparsity.choice import Choice, Selection
from compressor.sparsity.scores import Scores, random_scores, score_weights
from compressor.units import format_ratio


def weight_selector(
    program: Program, layers: Sequence[Layer], scoped: set[str], kept: set[str], choice: Choice
) -> WeightSelector:
    """The selector over the weights of convolutions and linear layers in `scoped` and not in `kept`.

    Raises:  PatternError if there is none.
    """
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
