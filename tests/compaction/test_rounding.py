"""Widths filled up with what is dead: to a multiple, or where a stopwatch finds that it pays; always exact."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from compressor.compaction import compact
from compressor.errors import UsageError
from compressor.program import InputSpec, Program, capture, find_layers


class Fours:
    """A stopwatch by which an operator takes a second per filter, and twice as long unless its channels are in
    fours; `pays` false makes all channels alike."""

    def __init__(self, pays: bool = True) -> None:
        self.pays = pays

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        times = []
        for program in programs:
            (layer,) = find_layers(program)
            n_filters, n_channels = program.parameters[layer.weight].shape[:2]
            times.append(float(n_filters) * (2 if self.pays and n_channels % 4 else 1))
        return tuple(times)


@pytest.fixture
def masked() -> Program:
    """Of 12 filters 6 are zero in the weights, bias and all; the second layer keeps all of its 8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 12, 3), nn.Sigmoid(), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        net[0].weight[1::2] = 0
        net[0].bias[1::2] = 0
    return capture(net, [InputSpec("x", (None, 3, 9, 9))])


@pytest.mark.parametrize(("multiple", "width"), [(1, 6), (4, 8), (5, 10), (16, 12)])
def test_a_width_is_a_multiple_or_whole(masked: Program, multiple: int, width: int) -> None:
    small, report = compact(masked, round_to=multiple, lowering="dense", allow_noop=True)
    assert small.parameters["0.weight"].shape[0] == small.parameters["2.weight"].shape[1] == width
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert bool((small.parameters["2.weight"] == 0).any()) == (multiple > 1)


def test_a_width_is_filled_up_where_that_is_faster(masked: Program) -> None:
    small, _ = compact(masked, round_to=0, lowering="dense", stopwatch=Fours())
    assert small.parameters["0.weight"].shape[0] == 8
    small, _ = compact(masked, round_to=0, lowering="dense", stopwatch=Fours(pays=False))
    assert small.parameters["0.weight"].shape[0] == 6


def test_without_a_stopwatch_nothing_is_guessed(masked: Program) -> None:
    with pytest.raises(UsageError, match="no stopwatch: which widths are fast is measured"):
        compact(masked, round_to=0)


def test_a_negative_multiple_is_none(masked: Program) -> None:
    with pytest.raises(UsageError, match=r"--round-to -2: a whole number from 1, or auto"):
        compact(masked, round_to=-2)
