"""Widths filled up with what is dead: to a multiple, or to what kernels like; always exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.asking import PruneSettings
from compressor.axes import find_units
from compressor.compaction import LoweringChoice, compact
from compressor.cost import USUAL, Preference, Preferences, filled_work
from compressor.cost.preferences import KINDS
from compressor.errors import UsageError
from compressor.program import InputSpec, Program, capture
from compressor.pruning import prune
from compressor.sparsity import find_likes
from tests.kernels import Broken, Kernels
from tests.sparsity.test_closest import captured


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


FOURS = Preferences(dict.fromkeys(KINDS, Preference(4, 4, odd=2.0)))


def test_a_width_is_filled_up_where_that_is_faster(masked: Program) -> None:
    small, _ = compact(masked, round_to=0, lowering="dense", stopwatch=Kernels(FOURS))
    assert small.parameters["0.weight"].shape[0] == 8
    small, _ = compact(masked, round_to=0, lowering="dense", stopwatch=Kernels(Preferences()))
    assert small.parameters["0.weight"].shape[0] == 6


def test_where_nothing_can_be_measured_the_usual_widths_are_taken() -> None:
    program, _ = captured("residual")
    cut, _ = prune(program, PruneSettings(ratio=2.0, method="magnitude", round_to=1))
    usual, told = compact(cut, round_to=0, lowering="dense")
    broken, warned = compact(cut, round_to=0, lowering="dense", stopwatch=Broken())
    shapes = [{name: p.shape for name, p in small.parameters.items()} for small in (usual, broken)]
    assert shapes[0] == shapes[1] and usual.n_parameters > compact(cut, lowering="dense")[0].n_parameters
    assert told.warnings == () and len(warned.warnings) == 1


@pytest.mark.parametrize("lowering", ["columns", "gather", "auto"])
def test_what_fills_a_width_is_not_left_out_again_by_lowering(masked: Program, lowering: LoweringChoice) -> None:
    small, report = compact(masked, round_to=0, lowering=lowering, stopwatch=Kernels(FOURS))
    assert small.parameters["2.weight"].shape[1] == 8 and not report.lowered
    small, report = compact(masked, round_to=1, lowering=lowering, stopwatch=Kernels(FOURS))
    assert small.parameters["2.weight"].shape[1] == 6


@pytest.mark.parametrize("ratio", [2.0, 4.0])
@pytest.mark.parametrize("name", ["residual", "depthwise", "grouped"])
def test_whatever_was_cut_ends_in_widths_that_operators_can_load(name: str, ratio: float) -> None:
    """Cut without rounding, filled by `compact`: as liked as if it had been cut so, and exact."""
    program, _ = captured(name)
    cut, _ = prune(program, PruneSettings(ratio=ratio, method="magnitude", of="macs", round_to=1))
    plain, _ = compact(cut, lowering="dense")
    filled, report = compact(cut, round_to=0, lowering="dense")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert filled_work(filled, USUAL) < filled_work(plain, USUAL)
    units = find_units(filled)
    likes = find_likes(filled, units, USUAL)
    sizes = np.array([len(members) for members in units.groups])
    dense = {len(members) for members in find_units(program).groups}
    assert all(n % m == 0 or n in dense for n, m in zip(sizes, likes.multiples, strict=True))


def test_a_negative_multiple_is_none(masked: Program) -> None:
    with pytest.raises(UsageError, match=r"--round-to -2: a whole number from 1, or auto"):
        compact(masked, round_to=-2)
