"""What a pattern lets stay of one layer's weights, again and again by other magnitudes; it must never set a budget.

A selector says how much of each layer stays. Here that much of it is chosen anew, by whoever knows more of the layer
than its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.asking.pattern import Pattern
from compressor.program import CONTRACTIONS, Layer
from compressor.sparsity.grouping import Blocks, Grouping, Singles
from compressor.sparsity.projection import bin_magnitudes, keep_largest
from compressor.sparsity.select_window import keep_windows


@dataclass(frozen=True)
class WeightSupport:
    """The `n` largest groups of a layer, among what `allowed` does not exclude.

    Shapes:  allowed in the weight's, filters first
    """

    grouping: Grouping
    allowed: Tensor
    n: int

    def __call__(self, magnitudes_OK: Tensor, share: float) -> Tensor:
        """Which weights stay once a share of what is to go is gone. Shapes: (O, K) -> (O, K) bool"""
        allowed = self.allowed.to(magnitudes_OK.device)
        found = magnitudes_OK.reshape(allowed.shape).masked_fill(~allowed, 0.0)
        binned = bin_magnitudes(self.grouping.magnitudes(found), self.grouping.all_of(~allowed))
        n = round(binned.n_alive - share * (binned.n_alive - self.n))
        return (self.grouping.spread(keep_largest(binned, n), allowed.shape) & allowed).flatten(1)


@dataclass(frozen=True)
class WindowSupport:
    """The n largest of every m input channels, among what `allowed` does not exclude; there is no way half of it.

    Shapes:  allowed in the weight's, filters first and channels second
    """

    window: tuple[int, int]
    allowed: Tensor

    def __call__(self, magnitudes_OK: Tensor, share: float) -> Tensor:
        """Which weights stay. Shapes: (O, K) -> (O, K) bool"""
        allowed = self.allowed.to(magnitudes_OK.device)
        found = magnitudes_OK.reshape(allowed.shape).masked_fill(~allowed, -1.0)
        return (keep_windows(found, 1, *self.window) & allowed).flatten(1)


def supports_of(
    layers: tuple[Layer, ...], pattern: Pattern, masks: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> dict[str, WeightSupport | WindowSupport]:
    """For each weight that `masks` cut further than the masks `before`: how as much of it is chosen anew.

    Of single weights, their blocks and N:M; what a mask before cut stays cut.
    """
    found: dict[str, WeightSupport | WindowSupport] = {}
    for layer in layers:
        mask = masks.get(layer.weight)
        if mask is None or layer.kind not in CONTRACTIONS or layer.in_dim is None:
            continue
        allowed = before[layer.weight] if layer.weight in before else torch.ones_like(mask)
        if torch.equal(mask, allowed):
            continue
        mask, allowed = mask.movedim(layer.out_dim, 0), allowed.movedim(layer.out_dim, 0).contiguous()
        if pattern.window is not None:
            found[layer.weight] = WindowSupport(pattern.window, allowed)
            continue
        grouping: Grouping = Singles() if pattern.block is None else Blocks(*pattern.block, 0)
        n = int((~grouping.all_of(~mask.contiguous())).sum())
        found[layer.weight] = WeightSupport(grouping, allowed, n)
    return found
