"""Masks, held as little as they need, and held against the weights they cut: set to 0, or found not to be.

It must never decide what is cut.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program.module import ProgramModule, of_same_kind

_N_SHOWN = 3
LEAST_ELEMENTS = 1 << 20
"""Weights of a tensor from which on a mask of whole units is held as positions: of smaller ones the mask itself is
nothing, can be changed in place, and is what earlier versions read out of a checkpoint."""


class UnitMasks(Mapping[str, Tensor]):
    """Masks as mappings have them, of which those of whole units are held as the positions that stay.

    A weight keeps what all of its dimensions keep: a few bytes for each filter where a mask has one for each weight.
    The mask is made when it is asked for; where one dimension alone loses positions it is a view of them.
    """

    def __init__(self, positions: Mapping[str, Positions], dense: Mapping[str, Tensor] | None = None) -> None:
        self.positions, self.dense = dict(positions), dict(dense or {})

    def __getitem__(self, name: str) -> Tensor:
        return self.dense[name] if name in self.dense else self.positions[name].mask()

    def __iter__(self) -> Iterator[str]:
        return iter((*self.positions, *self.dense))

    def __len__(self) -> int:
        return len(self.positions) + len(self.dense)

    def __contains__(self, name: object) -> bool:
        return name in self.positions or name in self.dense


@dataclass(frozen=True)
class Positions:
    """What whole units leave of a tensor of that shape: along each dimension that loses any, which positions stay.

    Shapes:  kept[dim] (shape[dim],) bool, on the CPU
    """

    shape: tuple[int, ...]
    kept: Mapping[int, Tensor]

    def mask(self) -> Tensor:
        """The mask of single weights. Shapes: -> shape"""
        mask = torch.ones((), dtype=torch.bool)
        for dim, along in self.kept.items():
            mask = mask & along.reshape([-1 if d == dim else 1 for d in range(len(self.shape))])
        return mask.expand(self.shape)

    def merged(self, other: Positions) -> Positions:
        """What both keep."""
        dims = sorted({*self.kept, *other.kept})
        both = {dim: [each.kept[dim] for each in (self, other) if dim in each.kept] for dim in dims}
        return Positions(self.shape, {dim: along[0] & along[-1] for dim, along in both.items()})


def held(positions: Mapping[str, Positions], dense: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
    """Masks of whole units beside others: as positions where the tensor is large, else one truth value a weight."""
    small = {n: kept.mask().contiguous() for n, kept in positions.items() if math.prod(kept.shape) < LEAST_ELEMENTS}
    large = {name: kept for name, kept in positions.items() if name not in small}
    masks = {**small, **(dense or {})}
    return UnitMasks(large, masks) if large else masks


def only(masks: Mapping[str, Tensor], names: Container[str]) -> Mapping[str, Tensor]:
    """The masks of these tensors, held as they were."""
    if not isinstance(masks, UnitMasks):
        return {name: mask for name, mask in masks.items() if name in names}
    positions = {name: kept for name, kept in masks.positions.items() if name in names}
    return UnitMasks(positions, {name: mask for name, mask in masks.dense.items() if name in names})


def merge_masks(*parts: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Masks that cut whatever one of the parts cuts; whole units stay positions where all that cuts a tensor are."""
    positions: dict[str, Positions] = {}
    dense: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        having = [part for part in parts if name in part]
        units = [part.positions[name] for part in having if isinstance(part, UnitMasks) and name in part.positions]
        if len(units) == len(having):
            positions[name] = functools.reduce(Positions.merged, units)
        else:
            dense[name] = functools.reduce(torch.logical_and, [part[name] for part in having]).clone()
    return held(positions, dense)


def replaced(masks: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The masks, held as they were, with the others in place of those of the same names."""
    if not isinstance(masks, UnitMasks):
        return {**masks, **others}
    positions = {name: kept for name, kept in masks.positions.items() if name not in others}
    return UnitMasks(positions, {**masks.dense, **others})


@torch.no_grad()
def cut(module: ProgramModule, masks: Mapping[str, Tensor]) -> ProgramModule:
    """The module with every weight that the masks cut at 0: what loses nothing is shared, and nothing is written to."""
    tensors = module.tensors()
    for name in masks:
        found = tensors[name]
        tensors[name] = of_same_kind(found.detach().masked_fill(~masks[name].to(found.device), 0.0), found)
    made = ProgramModule(tensors, copy.deepcopy(module.graph))
    made.training = module.training
    return made


@torch.no_grad()
def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every cut weight to 0, in place."""
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


@torch.no_grad()
def refuse_broken_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Nothing, when every weight that a mask cuts is 0.

    Raises:  ModelError with how many are not, where, and what to do.
    """
    parameters = dict(module.named_parameters())
    broken: dict[str, int] = {}
    for name, mask in masks.items():
        alive = (parameters[name] != 0) & ~mask.to(parameters[name].device)
        if n := int(alive.sum()):
            broken[name] = n
    if broken:
        worst = sorted(broken, key=lambda name: -broken[name])
        listed = ", ".join(f"{name} {broken[name]:,}" for name in worst[:_N_SHOWN])
        more = " …" if len(worst) > _N_SHOWN else ""
        raise ModelError(
            f"{sum(broken.values()):,} weights that the masks cut are not 0 ({listed}{more}): trained without them\n"
            f"call program.apply_masks(), in a training loop of your own after every step of the optimizer"
        )
