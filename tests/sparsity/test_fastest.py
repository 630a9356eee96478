"""The fastest widths of one cost: against trying everything, and by exchanges where there is too much to try."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compressor.axes import find_units
from compressor.errors import RatioError
from compressor.program import InputSpec, capture, find_layers
from compressor.sparsity import Budget, LatencyBudget, fastest
from compressor.sparsity.fastest import WidthSearch, _exchanges, keep_widths
from compressor.sparsity.select_units import UnitSelector, unit_selector
from tests.choices import choice_of
from tests.sparsity.test_latency import ByWork


def selector(round_to: int = 4, allocation: str = "latency") -> UnitSelector:
    """Two widths of 64 filters; the first convolution works on four times as many positions as the second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 4, 4),
        )  # fmt: skip
        program = capture(net, [InputSpec("x", (None, 8, 8, 8))])
    layers = find_layers(program)
    choice = choice_of("channel", allocation=allocation, round_to=round_to, stopwatch=ByWork())
    return unit_selector(program, find_units(program), layers, {x.name for x in layers}, set(), choice, "channel")


def search_of(chosen: UnitSelector) -> WidthSearch:
    assert isinstance(chosen.budget, Budget) and isinstance(chosen.latency, LatencyBudget)
    return WidthSearch(chosen.rules, chosen.budget, chosen.latency)


def test_costs_of_widths_are_those_of_units() -> None:
    chosen = selector()
    search, ranked = search_of(chosen), np.arange(chosen.units.n_units, dtype=float)
    assert chosen.latency is not None
    for widths in ([64, 64], [4, 60], [20, 8]):
        keep = keep_widths(ranked, chosen.rules, np.array(widths))
        assert np.bincount(chosen.rules.group[keep]).tolist() == widths
        assert search.cost(np.array([widths]))[0] == pytest.approx(chosen.budget.cost(keep))
        assert search.seconds(np.array([widths]))[0] == pytest.approx(chosen.latency.cost(keep))


@pytest.mark.parametrize("most_tried", [200_000, 0])
def test_the_fastest_is_found(monkeypatch: pytest.MonkeyPatch, most_tried: int) -> None:
    """Against all combinations; with none tried at once, by exchanges."""
    monkeypatch.setattr(fastest, "_MOST_TRIED", most_tried)
    chosen = selector()
    search, target = search_of(chosen), chosen.dense / 4
    start = np.array([32, 24])
    assert search.cost(start[None])[0] <= target
    found = search.fastest(start, target)
    grid = np.array(list(itertools.product(range(4, 65, 4), repeat=2)))
    least = min(0.97 * target, float(search.cost(start[None])[0]))
    fitting = grid[(search.cost(grid) <= target) & (search.cost(grid) >= least)]
    assert search.seconds(found[None])[0] == pytest.approx(search.seconds(fitting).min())
    assert search.seconds(found[None])[0] < search.seconds(start[None])[0]


def test_a_cost_that_is_met_exactly_is_met() -> None:
    chosen = selector()
    search, grid = search_of(chosen), np.array(list(itertools.product(range(4, 65, 4), repeat=2)))
    for target in np.unique(search.cost(grid))[-40::8]:
        start = np.array([4, 4])
        least = min(0.97 * target, float(search.cost(start[None])[0]))
        fitting = grid[(search.cost(grid) <= target) & (search.cost(grid) >= least)]
        found = search.fastest(start, float(target))
        assert search.seconds(found[None])[0] == pytest.approx(search.seconds(fitting).min())


def test_exchanges_take_from_one_width_and_give_to_another_in_whole_steps() -> None:
    widths, steps = np.array([32, 24, 16]), np.array([4, 4, 4])
    least, most = np.array([4, 4, 16]), np.array([64, 64, 16])
    moves = np.array(list(_exchanges(widths, steps, least, most))) - widths
    assert (moves % 4 == 0).all() and (moves[:, 2] == 0).all() and len(moves) > 20
    both = moves[(moves != 0).sum(1) == 2]
    assert len(both) and (both[:, 0] * both[:, 1] < 0).all()
    alone = {int(moved[0]) for moved in _exchanges(*(np.array([n]) for n in (9, 4, 4, 64)))}
    assert alone == {4, 5, 13, 17, 21, 25}, "whole steps from where it is, or the limit"
    search = search_of(selector(round_to=1))
    assert [search._steps(np.array(widths)).tolist() for widths in ([40, 100], [63, 64])] == [[1, 3], [1, 2]]


def test_selection_by_latency_costs_as_much_and_takes_less_time() -> None:
    by_time, by_worth = selector(), selector(allocation="global")
    weights = by_time.program.parameters
    chosen, usual = by_time.select(weights, 2.5), by_worth.select(weights, 2.5)
    assert chosen.keep is not None and usual.keep is not None and by_time.latency is not None
    assert chosen.ratio >= 2.5 and chosen.kept >= 0.97 * min(usual.kept, by_time.dense / 2.5)
    assert by_time.latency.cost(chosen.keep) < by_time.latency.cost(usual.keep)


def test_an_infeasible_ratio_is_still_told() -> None:
    with pytest.raises(RatioError, match="the largest feasible is"):
        selector().select(selector().program.parameters, 1000.0)


def test_the_best_of_each_width_stay_and_what_may_not_go() -> None:
    chosen = selector()
    ranked = np.zeros(chosen.units.n_units)
    first = np.flatnonzero(chosen.rules.group == 0)
    ranked[first[10:20]] = 1.0
    free = chosen.rules.free.copy()
    free[first[0]] = False
    keep = keep_widths(ranked, replace(chosen.rules, free=free), np.array([8, 64]))
    assert keep[first[0]] and keep[first].sum() == 8 and keep[first[10:20]].sum() == 7


def test_a_part_that_all_units_would_leave_keeps_its_best() -> None:
    chosen = selector()
    first = np.flatnonzero(chosen.rules.group == 0)
    ranked = np.zeros(chosen.units.n_units)
    ranked[first[:8]], ranked[first[50]] = 2.0, 1.0
    keep = keep_widths(ranked, replace(chosen.rules, widths=(first[40:],)), np.array([8, 64]))
    assert np.flatnonzero(keep[first]).tolist() == [*range(8), 50]


def test_what_may_not_go_may_be_all_that_is_asked_for() -> None:
    chosen = selector()
    first, free = np.flatnonzero(chosen.rules.group == 0), chosen.rules.free.copy()
    free[first[:8]] = False
    for asked in (8, 4):
        keep = keep_widths(np.zeros(chosen.units.n_units), replace(chosen.rules, free=free), np.array([asked, 64]))
        assert np.flatnonzero(keep[first]).tolist() == list(range(8))


def test_what_is_gone_stays_gone() -> None:
    chosen = selector()
    gone = np.zeros(chosen.units.n_units, dtype=bool)
    gone[:10] = True
    keep = keep_widths(np.zeros(chosen.units.n_units), replace(chosen.rules, gone=gone), np.array([64, 64]))
    assert not keep[:10].any() and keep[10:].all()
