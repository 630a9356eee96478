"""From scores and a budget to a choice of units, on numbers small enough to choose by hand."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.axes import Keep
from compressor.errors import RatioError
from compressor.sparsity.allocation import Rules, choose_units, largest_ratio, rank_scores

GROUP = np.array([0, 0, 0, 0, 1, 1])
SCORES = np.array([4.0, 1.0, 3.0, 2.0, 10.0, 20.0])


def rules(floor: float = 0.0, step: int = 1, gone: Keep | None = None, pinned: tuple[int, ...] = ()) -> Rules:
    free = np.ones(len(GROUP), dtype=bool)
    free[list(pinned)] = False
    return Rules(GROUP, free, floor, step, gone=gone)


def cost(keep: Keep) -> float:
    return float(keep.sum())


def test_uniform_ranks_by_the_place_inside_a_group() -> None:
    assert rank_scores(SCORES, rules(), "uniform").tolist() == [0.75, 0.0, 0.5, 0.25, 0.0, 0.5]


def test_the_least_important_go_until_the_budget_is_met() -> None:
    keep = choose_units(SCORES, rules(), cost, 6.0, 2.0)
    assert keep.tolist() == [True, False, False, False, True, True]


def test_every_group_keeps_one_unit_and_what_is_pinned_stays() -> None:
    assert largest_ratio(SCORES, rules(), cost, 6.0) == 3.0
    keep = choose_units(SCORES, rules(pinned=(1,)), cost, 6.0, 2.0)
    assert keep[1] and keep.sum() == 3


def test_a_floor_that_forbids_the_ratio_is_told_with_what_is_feasible() -> None:
    with pytest.raises(RatioError, match=r"the largest feasible is 2\.00x; .*under the floor"):
        choose_units(SCORES, rules(floor=0.5), cost, 6.0, 4.0)


def test_what_is_gone_already_stays_gone() -> None:
    gone = np.array([True, False, False, False, False, False])
    keep = choose_units(SCORES, rules(gone=gone), cost, 6.0, 2.0)
    assert not keep[0] and keep.sum() == 3


def test_widths_are_whole_steps() -> None:
    keep = choose_units(SCORES, rules(step=2), cost, 6.0, 1.5)
    assert np.bincount(GROUP[keep], minlength=2).tolist() == [2, 2]
