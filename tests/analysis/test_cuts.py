"""What one layer loses at a share, by each pattern."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.analysis.cuts import Cuts, plan_cuts
from compressor.axes import find_units
from compressor.errors import PatternError
from compressor.program import InputSpec, Program, capture, find_layers

SHARES = (0.25, 0.5, 0.9)


class Residual(nn.Module):
    """Two convolutions whose outputs are added: their filters are the same units."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.fc((x + self.b(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    return capture(Residual(), [InputSpec("x", (None, 2, 5, 5))])


def cuts_of(program: Program, pattern: str, shares: tuple[float, ...] = SHARES) -> Cuts:
    return plan_cuts(program, find_units(program), find_layers(program), pattern, shares)


def test_single_weights_go_by_magnitude(program: Program) -> None:
    found = cuts_of(program, "unstructured")
    assert list(found.points) == ["a", "b", "fc"]
    share, i = found.points["b"][1]
    ((name, (mask,)),) = found.cuts[i].masks.items()
    weight = program.parameters[name].detach()
    assert (name, share, int((~mask).sum())) == ("b.weight", 0.5, 288)
    assert float(weight[~mask].abs().max()) <= float(weight[mask].abs().min())


@pytest.mark.parametrize("pattern", ["filter", "channel"])
def test_units_go_with_everything_that_is_coupled(program: Program, pattern: str) -> None:
    found = cuts_of(program, pattern)
    assert list(found.points) == ["a", "b"], "the outputs of the network are pinned"
    assert [share for share, _ in found.points["a"]] == [0.25, 0.5, 0.875], "whole filters, and one always stays"
    changed = found.cuts[found.points["a"][0][1]].apply(program.parameters)
    assert set(changed) == {"a.weight", "a.bias", "b.weight", "b.bias", "fc.weight"}
    gone = changed["a.weight"].flatten(1).abs().sum(1) == 0
    assert int(gone.sum()) == 2
    assert torch.equal(changed["fc.weight"].abs().sum(0) == 0, gone)
    assert torch.equal(changed["b.weight"].abs().sum((0, 2, 3)) == 0, gone)


def test_filters_go_by_their_own_weights_and_units_by_all_slices(program: Program) -> None:
    own = cuts_of(program, "filter")
    order = program.parameters["b.weight"].detach().square().sum((1, 2, 3)).argsort()
    changed = own.cuts[own.points["b"][0][1]].apply(program.parameters)
    gone = (changed["b.bias"] == 0).nonzero().flatten().tolist()
    assert sorted(gone) == sorted(order[:2].tolist())
    together = cuts_of(program, "channel")
    assert together.points["a"] == together.points["b"], "layers that share a width share their cuts"
    assert len(together.cuts) == 3


def test_cutting_leaves_the_network_alone(program: Program) -> None:
    before = {name: tensor.clone() for name, tensor in program.parameters.items()}
    found = cuts_of(program, "channel")
    changed = found.cuts[0].apply(program.parameters)
    assert any(not torch.equal(changed[name], before[name]) for name in changed), "something is cut"
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.parameters.items())


def test_a_share_too_small_for_one_filter_is_left_out(program: Program) -> None:
    assert [share for share, _ in cuts_of(program, "filter", (0.01, 0.5)).points["a"]] == [0.5]


def test_one_filter_stays_however_much_is_to_go_and_it_is_the_best(program: Program) -> None:
    weight = program.parameters["b.weight"].detach()
    best = int(weight.square().sum((1, 2, 3)).argmax())
    for share in (0.9, 0.97, 1.0):
        found = cuts_of(program, "filter", (share,))
        ((left, i),) = found.points["b"]
        changed = found.cuts[i].apply(program.parameters)
        assert left == 0.875 and (changed["b.bias"] != 0).nonzero().flatten().tolist() == [best]


def test_a_layer_whose_units_count_twice_goes_by_whole_units() -> None:
    """A grouped convolution: a unit is a filter of each group."""
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 2, 1))
    found = cuts_of(capture(net, [InputSpec("x", (None, 2, 5, 5))]), "filter", (0.2, 0.4, 0.6, 0.9))
    assert [round(share, 3) for share, _ in found.points["1"]] == [0.333, 0.667]


def test_nothing_to_cut_is_an_error() -> None:
    program = capture(nn.Linear(4, 3), [InputSpec("x", (None, 4))])
    with pytest.raises(PatternError, match="nothing in scope can be cut"):
        cuts_of(program, "channel")
    assert len(cuts_of(program, "unstructured").points) == 1, "single weights of the outputs may go"
