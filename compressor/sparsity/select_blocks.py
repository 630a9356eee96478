"""Whole residual blocks as the thing to choose: pattern `layer`, alone or before the widths of what is left.

It must never look at a graph. Blocks are chosen first, for a part of the ratio; then the network without them is a
network as any other, with units, widths and a budget of its own, which is met there. What masks cut before counts as
cut, whole blocks too, so that any pattern can follow on blocks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from compressor.axes import Block, Blocks, Keep, UnitMap, find_blocks, find_units, needed_without, without_blocks
from compressor.errors import PatternError, RatioError
from compressor.program import Layer, Program
from compressor.program.masks import merge_masks, only
from compressor.sparsity.allocation import Rules, choose_units, largest_ratio
from compressor.sparsity.budget import Budget
from compressor.sparsity.choice import Choice, Selection, Selector
from compressor.sparsity.cut_blocks import is_cut
from compressor.sparsity.masks import kept_units
from compressor.sparsity.scores import Scores, random_scores
from compressor.units import format_ratio, format_reachable

Plain = Callable[[Program, UnitMap], Selector]
"""Makes the selector of what is no block, for a network without some blocks."""

CountOver = Callable[[Program, UnitMap], Budget]
"""Makes what the ratio counts, for a network without some blocks."""

_SHARES = 5
"""Parts of the ratio that blocks are tried with, from what was asked to all of it."""


@dataclass(frozen=True)
class Left:
    """The network without some blocks, its units, what the ratio counts of it, and what cuts it further."""

    program: Program
    units: UnitMap
    budget: Budget
    inner: Selector | None

    def masks(self, masks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Those of its own parameters."""
        own = self.program.parameters
        return only(masks, own)

    def kept(self, masks: Mapping[str, Tensor]) -> Keep:
        return kept_units(self.units, self.masks(masks), self.program.parameters)

    def cost(self, masks: Mapping[str, Tensor]) -> float:
        keep = self.kept(masks)
        return self.budget.cost(keep) if self.inner is None else self.inner.kept_cost(self.masks(masks), keep)


@dataclass(frozen=True)
class BlockSelector:
    """Residual blocks among `candidates`, then what `plain` chooses of the rest; without candidates only that.

    `blocks` are all that the program has: what masks cut of them before is left out of everything.
    """

    program: Program
    units: UnitMap
    choice: Choice
    blocks: tuple[Block, ...]
    candidates: tuple[Block, ...]
    count: CountOver
    plain: Plain | None
    notes: tuple[str, ...] = ()
    _known: dict[frozenset[str], Left] = field(default_factory=dict[frozenset[str], Left], repr=False, compare=False)

    @property
    def dense(self) -> float:
        whole = self._without(frozenset())
        return whole.budget.dense if whole.inner is None else whole.inner.dense

    def select(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor] | None = None
    ) -> Selection:
        before = masks or {}
        found: Mapping[str, Tensor] = {}
        if self.kept_cost(before) > self.dense / ratio:
            cut = self._cut_by(before)
            if self.plain is None:
                found = self._masks(self._choose(tensors, ratio, before, cut))
            else:
                found = self._with_widths(tensors, ratio, before, cut)
        after = merge_masks(before, found)
        return Selection(after, self.dense, self.kept_cost(after), None)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep | None = None) -> float:
        """What is left once the blocks that the masks cut are gone, and of the rest what they leave there."""
        return self._without(self._cut_by(masks)).cost(masks)

    def prices(self, masks: Mapping[str, Tensor]) -> dict[Block, float]:
        """What goes with each block that may go and is still there, in what the ratio counts."""
        ranking = self._ranking(self.program.parameters, masks, self._cut_by(masks))
        return ranking.prices

    def _cut_by(self, masks: Mapping[str, Tensor]) -> frozenset[str]:
        return frozenset(block.name for block in self.blocks if is_cut(block, masks))

    def _without(self, names: frozenset[str]) -> Left:
        """What is left without these blocks; without none of them it is the program itself."""
        if names not in self._known:
            program, units = self.program, self.units
            if names:
                program = without_blocks(program, [block for block in self.blocks if block.name in names])
                units = find_units(program, self.choice.asked.walk)
            inner = None if self.plain is None else self.plain(program, units)
            self._known[names] = Left(program, units, self.count(program, units), inner)
        return self._known[names]

    def _masks(self, blocks: Sequence[Block]) -> dict[str, Tensor]:
        """Masks that cut all that makes these blocks 0."""
        parameters = self.program.parameters
        zeroed = sorted(frozenset[str]().union(*(block.zeroed for block in blocks)))
        return {name: torch.zeros(parameters[name].shape, dtype=torch.bool) for name in zeroed}

    def _with_widths(
        self, tensors: Mapping[str, Tensor], ratio: float, before: Mapping[str, Tensor], cut: frozenset[str]
    ) -> Mapping[str, Tensor]:
        """Blocks for a share of the ratio, as a power, widths for the rest; more by blocks where widths cannot.

        Raises:  RatioError with the largest ratio that widths reach behind all blocks that may go.
        """
        shares = np.linspace(self.choice.asked.unit_share, 1, _SHARES)[:-1] if self.candidates else ()
        for share in shares:
            with contextlib.suppress(RatioError):
                return self._at_share(float(share), tensors, ratio, before, cut)
        return self._at_share(1.0, tensors, ratio, before, cut)

    def _at_share(
        self, share: float, tensors: Mapping[str, Tensor], ratio: float, before: Mapping[str, Tensor],
        cut: frozenset[str],
    ) -> Mapping[str, Tensor]:  # fmt: skip
        target = self.dense / ratio
        blocks = self._most(tensors, ratio**share, cut)
        while blocks and self._without(cut | {block.name for block in blocks}).cost(before) < target:
            blocks = blocks[:-1]  # widths come nearer than a block more would
        left = self._without(cut | {block.name for block in blocks})
        masks = self._masks(blocks)
        if left.inner is None or left.cost(before) <= target:
            return masks
        own = {name: tensor for name, tensor in tensors.items() if name in left.program.parameters}
        return merge_masks(masks, left.inner.select(own, left.inner.dense / target, left.masks(before)).masks)

    def _most(self, tensors: Mapping[str, Tensor], ratio: float, cut: frozenset[str]) -> list[Block]:
        """Blocks that make this ratio alone, as if no width were cut before; or as much of it as blocks can."""
        if not self.candidates or ratio <= 1:
            return []
        ranking = self._ranking(tensors, {}, cut)
        return ranking.choose(min(ratio, ranking.largest * (1 - 1e-9)))  # less the rounding of its own division

    def _choose(
        self, tensors: Mapping[str, Tensor], ratio: float, before: Mapping[str, Tensor], cut: frozenset[str]
    ) -> list[Block]:
        """Raises:  RatioError with the largest feasible ratio."""
        ranking = self._ranking(tensors, before, cut)
        try:
            return ranking.choose(ratio)
        except RatioError as error:
            raise RatioError(
                f"--ratio {format_ratio(ratio)}: the largest feasible by whole blocks is"
                f" {format_reachable(ranking.largest)}; {len(self.candidates)} of {len(self.blocks)} residual blocks"
                " may go, but not all\ncut the widths of what is left as well, --pattern layer+channel; `compress"
                " analyze` lists the blocks"
            ) from error

    def _ranking(
        self, tensors: Mapping[str, Tensor], before: Mapping[str, Tensor], cut: frozenset[str]
    ) -> BlockRanking:
        left = self._without(cut)
        blocks = tuple(block for block in self.blocks if block.name not in cut)
        free = np.array([block in self.candidates for block in blocks], dtype=bool)
        rules = Rules(np.zeros(len(blocks), dtype=np.int64), free, self.choice.asked.floor, 1)
        return BlockRanking(left, left.kept(before), blocks, self.dense, rules, self._scores(blocks, tensors))

    def _scores(self, blocks: Sequence[Block], tensors: Mapping[str, Tensor]) -> Scores:
        """What matters of each block, larger is kept: its place in the order that was measured, else the magnitude of
        what makes it 0. Shapes: -> (n_blocks,)"""
        if self.choice.asked.rates == "random":
            return random_scores(len(blocks), self.choice.asked.seed)
        if self.choice.order is None:
            return magnitudes(blocks, tensors)
        place = {name: float(i) for i, name in enumerate(self.choice.order)}
        return np.array([place.get(block.name, math.inf) for block in blocks])


@dataclass(frozen=True)
class BlockRanking:
    """The blocks of one network with their scores, and what a choice of them costs. Shapes: scores (n_blocks,)

    `keep` are the units that are left, `dense` what the whole network costs; `rules` say which blocks may go.
    """

    left: Left
    keep: Keep
    blocks: tuple[Block, ...]
    dense: float
    rules: Rules
    scores: Scores

    def cost(self, kept: Keep) -> float:
        """Shapes: kept (n_blocks,)"""
        needed = needed_without(self.left.program, self._cut(kept))
        return self.left.budget.of_needed(needed).cost(self.keep)

    @property
    def prices(self) -> dict[Block, float]:
        """What goes with each block that may go, alone."""
        n = len(self.blocks)
        whole = self.cost(np.ones(n, dtype=bool))
        may_go = np.flatnonzero(self.rules.free)
        return {self.blocks[i]: whole - self.cost(np.arange(n) != i) for i in may_go}

    @property
    def largest(self) -> float:
        return largest_ratio(self.scores, self.rules, self.cost, self.dense)

    def choose(self, ratio: float) -> list[Block]:
        """The blocks that go, the least important first. Raises: RatioError if they cannot come to the ratio."""
        kept = choose_units(self.scores, self.rules, self.cost, self.dense, ratio)
        order = np.argsort(self.scores, kind="stable")
        return [self.blocks[i] for i in order if not kept[i]]

    def _cut(self, kept: Keep) -> list[Block]:
        return [block for block, stays in zip(self.blocks, kept, strict=True) if not stays]


def magnitudes(blocks: Sequence[Block], tensors: Mapping[str, Tensor]) -> Scores:
    """Mean square of what makes each block 0, each tensor relative to those of all blocks with as many dimensions.

    A whole tensor has no other part to be compared with, as a filter has; a scale is compared with scales, a kernel
    with kernels.

    Shapes:  -> (n_blocks,)
    """
    energy = {
        name: (tensors[name].dim(), float(tensors[name].detach().double().square().mean()))
        for block in blocks for name in block.zeroed
    }  # fmt: skip
    usual: dict[int, float] = {}
    for dim in {dim for dim, _ in energy.values()}:
        usual[dim] = float(np.mean([value for d, value in energy.values() if d == dim])) or 1.0
    return np.array(
        [np.mean([energy[n][1] / usual[energy[n][0]] for n in sorted(b.zeroed)]) for b in blocks], np.float64
    )


def block_selector(
    program: Program, units: UnitMap, layers: Sequence[Layer], scoped: Collection[str], kept: Collection[str],
    choice: Choice, count: CountOver, plain: Plain | None,
) -> BlockSelector:  # fmt: skip
    """The selector over blocks whose last layers are all in `scoped` and that take no layer in `kept` with them.

    Raises:  PatternError if there are none.
    """
    found = find_blocks(program) if choice.blocks is None else Blocks(choice.blocks)
    candidates = tuple(
        block for block in found.free
        if all(layer.name in scoped for layer in layers if block.zeroed.intersection(layer.tensors))
        and not set(kept).intersection(block.layers)
    )  # fmt: skip
    if not candidates:
        why = f" ({found.pinned[0].name}: {found.pinned[0].reason})" if found.pinned and not found.free else ""
        said = (
            "no residual block in scope may go" if found.free or found.pinned else "the network has no residual block"
        )
        raise PatternError(
            f"--pattern {choice.asked.pattern}: {said}{why}\ncut widths instead: --pattern channel, filter or shape"
        )
    return BlockSelector(program, units, choice, found.free, candidates, count, plain)
