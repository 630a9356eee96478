"""What is taken out, and what is said about it: the exact values, what fills a width, who counts only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.axes import find_units
from compressor.compaction.removal import Removal, remove_dead
from compressor.compaction.rounding import Rounding
from compressor.program import InputSpec, Program, capture, find_routers, leaves_out, open_choices
from compressor.sparsity import mask_units
from tests.axes import expert_networks


class Block(nn.Module):
    """x + norm(branch(x)) with a branch of zeros: the norm's constants are not rational, and no type stores them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.norm = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.end = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).sigmoid()
        return self.end(x + self.norm(self.branch(x)))


@torch.no_grad()
def block() -> Program:
    """Five of the eight channels of the stream are read by nothing that is not 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Block().eval()
    for parameter in (net.branch.weight, net.branch.bias):
        parameter.zero_()
    net.norm.bias.copy_(torch.arange(1, 9))
    net.norm.running_var.fill_(7.0)
    net.norm.running_mean.fill_(1.0)
    net.end.weight[:, 3:] = 0
    return capture(net, [InputSpec("x", (None, 2, 5, 5))])


def rounded(removed: Removal) -> list[bool]:
    """Whether each exact value is, rounded, what is stored."""
    stored = removed.program.module.tensors()
    return [torch.equal(value.to(stored[name].dtype), stored[name]) for name, value in removed.exact.items()]


@pytest.mark.parametrize(("multiple", "width"), [(1, 3), (4, 4), (8, 8)])
def test_exact_values_are_those_that_are_stored_and_0_where_a_width_is_filled(multiple: int, width: int) -> None:
    removed = remove_dead(block(), rounding=Rounding(multiple))
    assert [branch.became for branch in removed.branches] == ["its constant is norm.constant"]
    assert removed.program.parameters["norm.constant"].shape == (1, width, 1, 1)
    assert removed.exact["norm.constant"].dtype == torch.float64
    assert rounded(removed) == [True]
    assert int((removed.exact["norm.constant"] == 0).sum()) == width - 3
    shown = removed.program.parameters["norm.constant"].double()
    assert not torch.equal(removed.exact["norm.constant"], shown), (
        "exact values that are stored as they are show nothing"
    )


def test_exact_values_of_what_fills_nothing_are_whole() -> None:
    """A constant that no unit of the filled width carries: beside fillers, and not one of them."""

    class Beside(Block):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.alone, self.size = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.end(self.stem(x).sigmoid()).sigmoid()
            return self.last(y).sigmoid() * self.size(self.alone(y))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Beside().eval()
    with torch.no_grad():
        net.end.weight[:, 3:] = 0
        for parameter in (net.alone.weight, net.alone.bias):
            parameter.zero_()
        net.size.bias.fill_(1 / 3)
    removed = remove_dead(capture(net, [InputSpec("x", (None, 2, 5, 5))]), rounding=Rounding(4))
    assert removed.verdict.fillers.sum() == 1 and removed.program.parameters["stem.weight"].shape[0] == 4
    assert list(removed.exact) == ["size.constant"] and rounded(removed) == [True]


@pytest.mark.parametrize("masks_only", [True, False])
@pytest.mark.parametrize(("multiple", "told"), [(1, False), (2, True)])
def test_filled_is_what_rounding_left_and_not_the_one_unit_of_an_emptied_width(
    masks_only: bool, multiple: int, told: bool
) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
    program = capture(net, [InputSpec("x", (None, 4))])
    gone = {"0.weight": (6, 4), "0.bias": (6,), "2.weight": (5, 6)}
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in gone.items()}
    cut = program.replace(masks=masks).clone().apply_masks()
    removed = remove_dead(cut, masks_only=masks_only, rounding=Rounding(multiple))
    assert removed.verdict.fillers.any() and bool(removed.filled) == told


def test_who_counts_only_gets_the_widths_and_no_weights_and_who_does_not_say_so_gets_them() -> None:
    whole, counted = remove_dead(block()), remove_dead(block(), shapes_only=True)
    assert {name: p.shape for name, p in whole.program.parameters.items()} == {
        name: p.shape for name, p in counted.program.parameters.items()
    }
    assert torch.equal(whole.program.parameters["stem.weight"], block().parameters["stem.weight"][:3])
    assert whole.program.module(*whole.program.example_inputs(2)).shape == (2, 3, 5, 5)


def test_what_leaves_experts_out_goes_with_the_last_of_them_where_there_are_weights_to_tell() -> None:
    net = expert_networks.mixture(expert_networks.softmax_first, expert_networks.by_row)
    opened = open_choices(capture(net, [InputSpec("x", (None, 4, 5))]))
    (router,) = find_routers(opened)
    units = find_units(opened)
    keep = np.ones(units.n_units, dtype=bool)
    keep[units.axes[router.weight, 0][[1, 4]]] = False
    cut = opened.replace(masks=mask_units(opened.module, units, keep)).clone().apply_masks()
    removed, counted = remove_dead(cut).program, remove_dead(cut, shapes_only=True).program
    assert not leaves_out(removed) and leaves_out(counted)
    assert removed.parameters[router.weight].shape == counted.parameters[router.weight].shape
