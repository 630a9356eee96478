"""Input selection: only in front of first linear layers, removed for good, and equal to the masked network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compressor.asking import PruneSettings
from compressor.compaction import compact
from compressor.errors import UsageError
from compressor.program import InputSpec, Program, capture
from compressor.pruning import prune
from compressor.pruning.inputs import select_inputs


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x.flatten(1) / 2).relu())


@pytest.fixture
def dense() -> Program:
    torch.manual_seed(0)
    net = Dense()
    with torch.no_grad():
        net.one.weight[:, [0, 3, 7, 9]] *= 1e-3
    return capture(net, [InputSpec("x", (None, 1, 4, 4))])


def test_the_selection_changes_nothing_and_stands_before_the_first_layer_only(dense: Program) -> None:
    selected = select_inputs(dense)
    x = dense.example_inputs(3)
    assert torch.equal(selected.module(*x), dense.module(*x))
    assert set(selected.module.tensors()) - set(dense.module.tensors()) == {"one.selected"}
    assert select_inputs(selected).module.code == selected.module.code


@pytest.mark.parametrize("pattern", ["channel", "filter"])
def test_weak_inputs_go_and_compact_equals_masked(dense: Program, pattern: str) -> None:
    settings = PruneSettings(ratio=1.25, method="magnitude", pattern=pattern, select_inputs=True, round_to=1)
    pruned, report = prune(dense, settings)
    columns = pruned.masks["one.weight"].any(dim=0)
    assert columns[[0, 3, 7, 9]].sum() <= 1 and columns.sum() >= 8, "one may fit the budget again"
    smaller, proof = compact(pruned)
    assert proof.agreement is not None and smaller.parameters["one.weight"].shape[1] == int(columns.sum())
    assert report.kept_params == smaller.n_parameters and 1.25 <= report.got < 1.4
    x = dense.example_inputs(5)
    assert torch.allclose(smaller.module(*x), pruned.module(*x), atol=1e-6)


def test_without_the_option_inputs_stay(dense: Program) -> None:
    pruned, _ = prune(dense, replace(PruneSettings(ratio=1.25, method="magnitude"), select_inputs=False))
    assert pruned.masks["one.weight"].any(dim=0).all()


def test_a_network_that_begins_with_a_convolution_is_refused(tiny: Program) -> None:
    with pytest.raises(UsageError, match="--select-inputs: no fully connected layer reads the network's input"):
        select_inputs(tiny)


def test_single_weights_have_no_inputs_to_select(dense: Program) -> None:
    told = "--select-inputs: inputs go as whole units, and --pattern unstructured cuts none"
    with pytest.raises(UsageError, match=told):
        PruneSettings(ratio=2.0, method="magnitude", pattern="unstructured", select_inputs=True)
