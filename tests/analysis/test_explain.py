"""`explain`: what leaves with a filter, through what, and why one may not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.analysis import CoupledSlice, explain
from compressor.asking import WalkOptions
from compressor.axes import find_units
from compressor.errors import UsageError
from compressor.formats import load
from compressor.program import InputSpec, Program, capture
from tests.axes.attention_networks import network


class Residual(nn.Module):
    """Two convolutions onto one stream, a hard-coded flatten, a norm that pins."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.conv2 = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.fc, self.norm, self.head = nn.Linear(8 * 16, 10), nn.LayerNorm(10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = x + self.conv2(F.relu(self.conv1(x)))
        x = self.fc(x.view(-1, 128))
        return self.head(self.norm(x))


@pytest.fixture(scope="module")
def program() -> Program:
    return capture(Residual(), [InputSpec("x", (None, 3, 4, 4))])


def test_the_first_layer_of_lenet() -> None:
    found = explain(load("init", arch="lenet5"), "conv2", 3)
    assert found.slices == (
        CoupledSlice("conv2.weight", 0, (3,)),
        CoupledSlice("conv2.bias", 0, (3,)),
        CoupledSlice("fc1.weight", 1, tuple(range(48, 64))),
    )
    assert found.params == 20 * 25 + 1 + 16 * 500
    assert found.pinned is None


def test_everything_on_a_residual_stream(program: Program) -> None:
    found = explain(program, "conv2", 5)
    assert {(part.parameter, part.axis) for part in found.slices} == {
        ("stem.weight", 0), ("bn.weight", 0), ("bn.bias", 0), ("conv1.weight", 1), ("conv2.weight", 0),
        ("conv2.bias", 0), ("fc.weight", 1),
    }  # fmt: skip
    assert next(part.positions for part in found.slices if part.parameter == "fc.weight") == tuple(range(80, 96))
    assert found.params == 27 + 1 + 1 + 6 * 9 + 6 * 9 + 1 + 16 * 10


def test_the_operators_that_couple_with_the_users_lines(program: Program) -> None:
    chain = explain(program, "conv2", 5).chain
    said = {link.split(":")[0]: link for link in chain}
    assert set(said) == {
        "aten.conv2d.default conv2", "aten.add.Tensor add", "aten.batch_norm.default bn", "aten.conv2d.default conv1",
        "aten.linear.default fc",
    }  # fmt: skip
    assert said["aten.add.Tensor add"].endswith("x = x + self.conv2(F.relu(self.conv1(x)))")
    assert all("test_explain.py:" in link for link in chain)
    assert chain[0].startswith("aten.conv2d.default conv2")
    assert chain.index(said["aten.add.Tensor add"]) < chain.index(said["aten.batch_norm.default bn"])


def test_overlapping_slices_of_one_tensor_count_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(6, 6, bias=False), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner.weight.sum(0) * x[:, :1]
            return self.outer(F.linear(x, self.inner.weight) + x)

    found = explain(capture(Twice(), [InputSpec("x", (None, 3))]), "inner", 2)
    assert [(part.parameter, part.axis) for part in found.slices] == [
        ("inner.weight", 0), ("inner.weight", 1), ("outer.weight", 1),
    ]  # fmt: skip
    assert found.params == 6 + 6 - 1 + 2


def test_a_pinned_filter_has_the_nearest_reason_and_the_way_there(program: Program) -> None:
    found = explain(program, "fc")
    assert found.pinned == "normalised over 10 features (--through-norm)"
    assert found.pinned_at is not None
    assert found.pinned_at.startswith("aten.layer_norm.default norm: test_explain.py:")
    assert found.pinned_at.endswith("return self.head(self.norm(x))")
    assert found.chain == ()
    far = explain(network("vit"), "patches")
    assert far.pinned_at is not None
    assert far.pinned_at.startswith("aten.layer_norm.default blocks.0.norm1")
    assert [link.split(":")[0] for link in far.chain] == ["aten.cat.default cat"]
    direct = explain(program, "head", 2)
    assert (direct.pinned, direct.pinned_at, direct.chain) == ("output of the network", "output", ())


def test_other_options_find_other_units(program: Program) -> None:
    found = explain(program, "fc", 7, options=WalkOptions(through_norm="exact"))
    assert found.pinned is None
    assert found.params == 128 + 1 + 2 + 4
    walked = program.replace(record=type(program.record)(walk={"through_norm": "exact"}))
    assert explain(walked, "fc", 7) == found


def test_the_count_is_what_removal_removes(program: Program) -> None:
    from compressor.compaction import slice_program

    units = find_units(program)
    for layer, weight in (("conv1", "conv1.weight"), ("stem", "stem.weight")):
        for index in (0, 3):
            keep = torch.ones(units.n_units, dtype=torch.bool).numpy()
            keep[units.axes[weight, 0][index]] = False
            small = slice_program(program, units, keep)
            assert program.n_parameters - small.n_parameters == explain(program, layer, index).params


def test_the_default_is_the_first_filter_that_may_go() -> None:
    found = explain(load("init", arch="resnet20"), "layer2.0.conv2")
    assert found.pinned is None
    assert found.index == 0


def test_an_unknown_layer_has_near_names(program: Program) -> None:
    with pytest.raises(UsageError, match=r"--explain conv3: no such layer; did you mean .*conv1"):
        explain(program, "conv3")


def test_an_unknown_filter_has_the_range(program: Program) -> None:
    with pytest.raises(UsageError, match="conv1: has filters 0 to 5, not 6"):
        explain(program, "conv1", 6)
