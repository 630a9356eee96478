"""A ratio of time that holds for the network: the sum of layers is corrected by what the network does."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from compressor import OperatorClock, capture, prune
from compressor.asking import PruneSettings
from compressor.axes import find_units
from compressor.cost import count_macs
from compressor.errors import RatioError
from compressor.program import InputSpec, Program
from compressor.pruning.closing import NEAR, _next, close
from compressor.sparsity import Choice, Selector, kept_units, make_selector


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 60, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(60, 10),
    )  # fmt: skip
    return capture(net, [InputSpec("x", (None, 3, 12, 12))])


def selector_of(program: Program) -> Selector:
    settings = PruneSettings(ratio=2, method="magnitude", of="macs", round_to=1)
    return make_selector(program, find_units(program), Choice(settings))


def by_macs(program: Program, law: Callable[[float], float]) -> Callable[[Program, Program], float]:
    """A network whose speed-up follows from its MAC ratio by a law."""
    selector, units = selector_of(program), find_units(program)

    def speedup(before: Program, masked: Program) -> float:
        assert before is program and masked.masks and not program.masks
        keep = kept_units(units, masked.masks, masked.parameters)
        return law(selector.dense / selector.kept_cost(masked.masks, keep))

    return speedup


LAWS: dict[str, Callable[[float], float]] = {
    "faster than the sum says": lambda ratio: ratio**1.6,
    "an overhead that stays": lambda ratio: 1 / (0.2 + 0.8 / ratio),
    "as the sum says": lambda ratio: ratio,
    "slower at first": lambda ratio: 0.7 * ratio,
    "in steps": lambda ratio: 2 ** (math.floor(8 * math.log2(ratio)) / 8),
}


@pytest.mark.parametrize("name", LAWS)
def test_what_was_asked_is_met_whatever_the_law(program: Program, name: str) -> None:
    found = close(program, selector_of(program), 2.0, by_macs(program, LAWS[name]))
    assert found is not None and found.is_near
    assert abs(found.speedup / 2.0 - 1) <= NEAR
    assert LAWS[name](found.ratio) == pytest.approx(found.speedup, rel=0.06)


@pytest.mark.parametrize(("speed", "near"), [(1.91, True), (2.09, True), (1.89, False), (2.11, False)])
def test_near_is_within_five_per_cent_and_ends_the_search(program: Program, speed: float, near: bool) -> None:
    found = close(program, selector_of(program), 2.0, by_macs(program, lambda ratio: speed))
    assert found is not None and found.is_near == near and (found.tries == 1) == near


def test_it_goes_as_far_as_the_square_of_what_was_asked(program: Program) -> None:
    found = close(program, selector_of(program), 3.0, by_macs(program, lambda ratio: ratio**0.55))
    assert found is not None and found.is_near and 6.5 < found.ratio < 9.0


def test_it_goes_on_between_the_cuts_on_both_sides_however_fast_they_are() -> None:
    """The cut that was fast enough and cut least bounds it, though one that cut more was slower."""
    assert 2.0 < _next([(2.0, 1.5), (4.0, 2.2), (3.0, 2.6)], 2.0, 4.0) < 3.0


def test_where_the_speed_jumps_over_it_the_nearest_is_taken_and_said(program: Program) -> None:
    found = close(program, selector_of(program), 2.0, by_macs(program, lambda ratio: 1.6 if ratio < 2.5 else 3.0))
    assert found is not None and not found.is_near
    assert found.speedup == 1.6, "nearer than 3.0"


def test_what_no_cut_reaches_ends_at_the_most(program: Program) -> None:
    found = close(program, selector_of(program), 4.0, by_macs(program, lambda ratio: min(ratio, 1.5) + 0.001 * ratio))
    assert found is not None and not found.is_near and found.speedup < 1.6


def test_a_ratio_that_the_sum_cannot_reach_is_refused(program: Program) -> None:
    with pytest.raises(RatioError):
        close(program, selector_of(program), 1e6, by_macs(program, LAWS["as the sum says"]))


def test_without_a_measurement_the_sum_stands(program: Program) -> None:
    assert close(program, selector_of(program), 2.0, lambda before, masked: None) is None


def latency(
    program: Program, speedup: object, resume_file: Path | None = None, ratio: float = 2.0
) -> tuple[float, tuple[str, ...]]:
    settings = PruneSettings(ratio=ratio, method="magnitude", of="latency", round_to=1)
    clock = OperatorClock(1)
    _, report = prune(program, settings, stopwatch=clock, speedup=speedup, resume_file=resume_file)  # type: ignore[arg-type]
    return report.got, report.warnings


def test_prune_asks_the_network(program: Program) -> None:
    dense = count_macs(program)

    def speedup(before: Program, masked: Program) -> float:
        left = sum(int(mask.sum()) for mask in masked.masks.values()) / sum(m.numel() for m in masked.masks.values())
        return (1 / left) ** 1.5 if dense else 1.0

    got, warnings = latency(program, speedup)
    assert abs(got / 2.0 - 1) <= NEAR and not warnings


def test_prune_says_where_nothing_came_near(program: Program) -> None:
    got, warnings = latency(program, lambda before, masked: 1.2)
    assert got == 1.2
    assert any("asked 2.00x, got 1.20x by measurement" in warning for warning in warnings)
