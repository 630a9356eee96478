"""What is cut of one layer to lose a share of it, the least important first; it must never measure what that does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.axes import Ids, UnitMap
from compressor.errors import PatternError
from compressor.program import CONTRACTIONS, Layer, Program
from compressor.sparsity import score_units


@dataclass(frozen=True)
class Cut:
    """Masks by tensor name, each broadcastable to its tensor, True = keep; a tensor may have one per axis."""

    masks: Mapping[str, tuple[Tensor, ...]]

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that change, with what is cut set to 0; those given are left as they are."""
        changed: dict[str, Tensor] = {}
        for name, masks in self.masks.items():
            tensor = tensors[name]
            for mask in masks:
                tensor = tensor.masked_fill(~mask.to(tensor.device), 0.0)
            changed[name] = tensor
        return changed


@dataclass(frozen=True)
class Cuts:
    """The cuts of every layer: `points[layer]` are (removed share, index into `cuts`), the smallest share first.

    Layers whose units are the same at the same share have their cut in common.
    """

    cuts: tuple[Cut, ...]
    points: Mapping[str, tuple[tuple[float, int], ...]]


def plan_cuts(program: Program, units: UnitMap, layers: Sequence[Layer], pattern: str, shares: Sequence[float]) -> Cuts:
    """The cuts of each of `layers` at each of `shares`; layers of which nothing may go have none.

    `unstructured`: its smallest weights. `filter`: its filters with the smallest weights, and `channel`: those whose
    slices are the smallest altogether; both with everything that is coupled to them.

    Raises:  PatternError if no layer has anything to cut.
    """
    cuts: list[Cut] = []
    found: dict[object, int] = {}
    points: dict[str, tuple[tuple[float, int], ...]] = {}
    for layer in _weighted(program, layers):
        curve: dict[float, int] = {}
        for share, key, cut in _cuts_of(program, units, layer, pattern, sorted(set(shares))):
            if key not in found:
                found[key] = len(cuts)
                cuts.append(cut if isinstance(cut, Cut) else _without_units(program, units, cut))
            curve[share] = found[key]
        if curve:
            points[layer.name] = tuple(sorted(curve.items()))
    if not points:
        raise PatternError(f"--pattern {pattern}: nothing in scope can be cut; {units.way_out}")
    return Cuts(tuple(cuts), points)


def _weighted(program: Program, layers: Sequence[Layer]) -> Iterator[Layer]:
    """Convolutions and linear layers, each weight once."""
    seen: set[str] = set()
    parameters = program.parameters
    for layer in layers:
        if layer.kind in CONTRACTIONS and layer.weight in parameters and layer.weight not in seen:
            seen.add(layer.weight)
            yield layer


def _cuts_of(
    program: Program, units: UnitMap, layer: Layer, pattern: str, shares: Sequence[float]
) -> Iterator[tuple[float, object, Cut | Ids]]:
    """(share that really goes, what identifies the cut, the cut or the units that go)."""
    weight = program.parameters[layer.weight]
    if pattern == "unstructured":
        order = torch.argsort(weight.detach().abs().flatten(), stable=True)
        for share in shares:
            n = min(round(share * weight.numel()), weight.numel() - 1)
            if n:
                keep = torch.ones(weight.numel(), dtype=torch.bool)
                keep[order[:n]] = False
                cut = Cut({layer.weight: (keep.reshape(weight.shape),)})
                yield n / weight.numel(), (layer.weight, n), cut
        return
    of_index = units.axes.get((layer.weight, layer.out_dim))
    if of_index is None:
        return
    order, gone = _removal_order(program, units, layer, pattern, of_index)
    for share in shares:
        n = int(np.searchsorted(gone, share * len(of_index) + 0.5, side="right"))
        n = n - 1 if n and gone[n - 1] == len(of_index) else n  # one filter always stays
        if n:
            yield float(gone[n - 1]) / len(of_index), tuple(sorted(order[:n].tolist())), order[:n]


def _removal_order(program: Program, units: UnitMap, layer: Layer, pattern: str, of_index: Ids) -> tuple[Ids, Ids]:
    """The layer's units, the least important first, and how many filters of the layer are gone after each."""
    own = (layer.weight, layer.out_dim)
    scores = score_units(units, program.parameters, lambda name, dim: pattern == "channel" or (name, dim) == own)
    members, counts = np.unique(of_index[of_index >= 0], return_counts=True)
    order = np.argsort(scores[members], kind="stable")
    return members[order], np.cumsum(counts[order])


def _without_units(program: Program, units: UnitMap, gone: Ids) -> Cut:
    keep = np.ones(units.n_units, dtype=bool)
    keep[gone] = False
    masks: dict[str, tuple[Tensor, ...]] = {}
    for name, parameter in program.parameters.items():
        for dim in range(parameter.dim()):
            kept = units.kept_along(keep, name, dim)
            if not kept.all():
                shape = [-1 if d == dim else 1 for d in range(parameter.dim())]
                masks[name] = (*masks.get(name, ()), torch.from_numpy(kept).reshape(shape))
    return Cut(masks)
