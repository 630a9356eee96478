"""Whole experts as the thing to choose: pattern `expert`, alone or before the widths of the rest.

It must never measure what an expert is worth: the choice says it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from compressor.axes import Keep, UnitMap
from compressor.errors import PatternError, RatioError
from compressor.program import Layer, Program
from compressor.program.masks import merge_masks
from compressor.sparsity.allocation import largest_ratio
from compressor.sparsity.choice import Choice, Selection
from compressor.sparsity.select_units import UnitSelector, unit_selector

_SHARES = 5
"""Parts of the ratio that experts are tried with, from what was asked to all of it, and to none."""

_NEAR = 1.02
"""What is near enough to the ratio: experts are coarse, and what widths can add to them is too."""


@dataclass(frozen=True)
class ExpertSelector:
    """Experts for a share of the ratio, as a power, and what `inner` chooses for the rest; without it experts alone.

    Both are coarse in a small network, so other shares are tried where the first is not near the ratio.
    """

    experts: UnitSelector
    inner: UnitSelector | None
    unit_share: float

    @property
    def dense(self) -> float:
        return self.experts.dense

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.inner is None else self.inner.notes

    def select(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor] | None = None
    ) -> Selection:
        before = masks or {}
        if self.inner is None:
            return self.experts.select(tensors, ratio, before)
        ranked, rules = self.experts.ranking(tensors, before)
        most = largest_ratio(ranked, rules, self.experts.budget.cost, self.dense) * (1 - 1e-9)
        found: list[Selection] = []
        more, less = np.linspace(self.unit_share, 1, _SHARES), np.linspace(self.unit_share, 0, _SHARES)[1:-1]
        for share in (*more, *less):
            with contextlib.suppress(RatioError):
                found.append(self._at_share(float(share), most, tensors, ratio, before))
                if found[-1].ratio <= ratio * _NEAR:
                    return found[-1]
        if not found:
            return self._at_share(1.0, most, tensors, ratio, before)
        return min(found, key=lambda one: one.ratio)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep) -> float:
        return self.experts.kept_cost(masks, keep)

    def _at_share(
        self, share: float, most: float, tensors: Mapping[str, Tensor], ratio: float, before: Mapping[str, Tensor]
    ) -> Selection:
        """Raises:  RatioError if widths cannot come to what experts leave."""
        assert self.inner is not None
        first = self.experts.select(tensors, max(min(ratio**share, most), 1.0), before)
        if first.kept <= self.dense / ratio:
            return first
        return self.inner.select(tensors, ratio, merge_masks(before, first.masks))


def expert_selector(
    program: Program, units: UnitMap, layers: Sequence[Layer], scoped: set[str], kept: set[str], choice: Choice,
    inner: UnitSelector | None,
) -> ExpertSelector:  # fmt: skip
    """The selector over experts that some layer in `scoped` holds and no layer in `kept` does.

    Raises:  PatternError if there are none.
    """
    try:
        experts = unit_selector(program, units, layers, scoped, kept, choice, "expert")
    except PatternError as error:
        said = "no expert in scope may go" if units.experts.any() else "no router chooses among experts that may go"
        raise PatternError(
            f"--pattern {choice.asked.pattern}: {said}; `compress analyze` lists the routers, and why experts stay\n"
            "cut widths instead: --pattern channel"
        ) from error
    return ExpertSelector(experts, inner, choice.asked.unit_share)
