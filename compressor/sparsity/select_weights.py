"""Single weights or blocks of them as the thing to choose: patterns `unstructured` and `block`.

It must never know what a unit is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from compressor.asking.pattern import Pattern
from compressor.axes import Keep
from compressor.cost import macs_of_layers, weight_prices
from compressor.errors import PatternError, RatioError
from compressor.program import CONTRACTIONS, Layer, Program
from compressor.sparsity.by_layer import Demands, demanded_counts, find_demands
from compressor.sparsity.choice import Choice, Selection
from compressor.sparsity.counts import global_counts, share_budget, uniform_counts
from compressor.sparsity.grouping import Blocks, Grouping, Singles
from compressor.sparsity.misfits import refuse_or_note
from compressor.sparsity.projection import Binned, bin_magnitudes, keep_largest, tally
from compressor.sparsity.scores import random_scores
from compressor.typed_torch import from_numpy
from compressor.units import format_ratio, format_reachable

_CORRECTIONS = 8
_CLOSE_ENOUGH = 1e-3
"""Share of the budget that may be left over, and tries to get there where an earlier run cut across blocks."""


def weight_selector(
    program: Program, layers: Sequence[Layer], scoped: set[str], kept: set[str], choice: Choice, pattern: Pattern
) -> WeightSelector:
    """The selector over the weights of convolutions and linear layers in `scoped` and not in `kept`.

    Raises:  PatternError if there is none, or if blocks do not tile a layer that the scope names.
    """
    parameters = program.parameters
    price = weight_prices(program)
    prices: dict[str, float] = {}
    parts: dict[str, Grouping] = {}
    misfits: list[tuple[str, str]] = []
    for layer in layers:
        if layer.kind not in CONTRACTIONS or layer.name not in scoped or layer.weight not in parameters:
            continue
        # A weight that two operators read is multiplied by both.
        each = price.get(layer.node, 0.0) if choice.asked.of == "macs" else 1.0
        prices[layer.weight] = prices.get(layer.weight, 0.0) + each if choice.asked.of == "macs" else 1.0
        if layer.name in kept:
            continue
        grouping, misfit = _grouping(layer, parameters[layer.weight], pattern)
        if misfit is not None:
            misfits.append((layer.name, misfit))
        else:
            parts[layer.weight] = grouping
    notes = refuse_or_note(misfits, choice)
    if not parts:
        raise PatternError(f"--pattern {pattern.text}: no convolution or linear weight in scope that it fits")
    owners = {tensor for layer in layers if layer.name in scoped for tensor in layer.tensors if tensor in parameters}
    if choice.asked.of == "params":
        prices |= {name: 1.0 for name in owners}
    readers: dict[str, list[str]] = {}
    for layer in layers:
        if layer.weight in parts:
            readers.setdefault(layer.weight, []).append(layer.name)
    demands = find_demands(choice, layers, readers)
    return WeightSelector(
        parts, prices, _dense(program, layers, scoped, owners, choice.asked.of), choice, notes, demands
    )


def _grouping(layer: Layer, weight: Tensor, pattern: Pattern) -> tuple[Grouping, str | None]:
    if pattern.block is None:
        return Singles(), None
    blocks = Blocks(*pattern.block, layer.out_dim)
    misfit = blocks.misfit(weight.shape)
    return blocks, None if misfit is None else f"{pattern.text} {misfit}"


def _dense(program: Program, layers: Sequence[Layer], scoped: set[str], owners: set[str], of: str) -> float:
    if of == "params":
        return float(sum(p.numel() for name, p in program.parameters.items() if name in owners))
    nodes = {layer.node: layer.name for layer in layers}
    everything = scoped == set(nodes.values())
    macs = macs_of_layers(program)
    return float(sum(n for node, n in macs.items() if everything or nodes.get(node) in scoped))


@dataclass(frozen=True)
class WeightSelector:
    """Single weights or blocks of them.

    `parts` are the weights to choose from, `prices` what one element of each tensor costs in the budget: also of those
    that are not chosen from, because an earlier run may have cut them.
    """

    parts: Mapping[str, Grouping]
    prices: Mapping[str, float]
    dense: float
    choice: Choice
    notes: tuple[str, ...] = ()
    demands: Demands = field(default_factory=Demands)

    def select(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor] | None = None
    ) -> Selection:
        before = masks or {}
        binned = [self._bin(tensors[name], name, i, before.get(name)) for i, name in enumerate(self.parts)]
        left_of_others = self.dense - self._priced(tensors) - self._cut_of_others(before)
        prices = [self.prices[name] * grouping.size for name, grouping in self.parts.items()]
        curves = (
            global_counts([tally(part) for part in binned])
            if self.choice.asked.allocation != "uniform" and self.choice.asked.rates != "random"
            else uniform_counts([part.n_alive for part in binned])
        )
        if self.demands:
            sizes = [len(part.bins) for part in binned]
            n_over = [self._n_over(part, name) for part, name in zip(binned, self.parts, strict=True)]
            curves = demanded_counts(curves, list(self.parts), sizes, n_over, self.demands)
        target, budget = self.dense / ratio, self.dense / ratio - left_of_others
        chosen, left = dict[str, Tensor](), self.dense
        for _ in range(_CORRECTIONS if before else 1):
            try:
                counts = share_budget(curves, prices, budget)
            except RatioError as error:
                raise self._infeasible(ratio, left_of_others + sum(prices)) from error
            tried = {
                name: self._cut(grouping, part, n, tensors[name], before.get(name))
                for (name, grouping), part, n in zip(self.parts.items(), binned, counts, strict=True)
            }
            kept = self._kept({**before, **tried})
            if chosen and kept > target:
                break
            # A block that was partly cut before costs less than its price: what that leaves over is spent as well.
            chosen, left, budget = tried, kept, budget + (target - kept)
            if kept >= target * (1 - _CLOSE_ENOUGH) or counts == [part.n_alive for part in binned]:
                break
        return Selection(chosen, self.dense, left, None)

    @staticmethod
    def _cut(grouping: Grouping, part: Binned, n: int, tensor: Tensor, mask: Tensor | None) -> Tensor:
        keep = grouping.spread(keep_largest(part, n), tensor.shape)
        return keep if mask is None else keep & mask.to(keep.device)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep) -> float:
        return self._kept(masks)

    def _kept(self, masks: Mapping[str, Tensor]) -> float:
        cut = sum(price * int((~masks[name]).sum()) for name, price in self.prices.items() if name in masks)
        return self.dense - cut

    def _priced(self, tensors: Mapping[str, Tensor]) -> float:
        return sum(self.prices[name] * tensors[name].numel() for name in self.parts)

    def _cut_of_others(self, masks: Mapping[str, Tensor]) -> float:
        others = (name for name in self.prices if name in masks and name not in self.parts)
        return sum(self.prices[name] * int((~masks[name]).sum()) for name in others)

    def _bin(self, tensor: Tensor, name: str, position: int, mask: Tensor | None) -> Binned:
        grouping = self.parts[name]
        gone = None if mask is None else grouping.all_of(~mask.to(tensor.device))
        if self.choice.asked.rates == "random":
            noise = random_scores(tensor.numel() // grouping.size, self.choice.asked.seed + position)
            return bin_magnitudes(from_numpy(noise).to(tensor.device), gone)
        return bin_magnitudes(grouping.magnitudes(tensor), gone)

    def _n_over(self, part: Binned, name: str) -> int:
        """Entries whose magnitude is above the layer's threshold, in standard deviations of what is left of it."""
        threshold = self.demands.thresholds.get(name)
        if threshold is None:
            return part.n_alive
        # Of the magnitudes alone: the weights' mean is small against their spread, as Han et al. take it to be.
        alive = part.magnitudes[part.magnitudes >= 0]
        return int((alive > threshold * alive.square().mean().sqrt()).sum())

    def _infeasible(self, ratio: float, least: float) -> RatioError:
        return RatioError(
            f"--ratio {format_ratio(ratio)}: the largest feasible is {format_reachable(self.dense / least)}; what is"
            f" out of scope or kept, biases and normalisation are not pruned by `{self.choice.asked.pattern}`"
        )
