"""`analyze`: rows, groups, pins with the user's lines, and what masks change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.analysis import Analysis, analyze
from compressor.data.arrays import Arrays, ArraySource
from compressor.models import build
from compressor.program import InputSpec, Program, capture


class Branched(nn.Module):
    """A residual block, a normalisation over features, an operator without a rule, an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.inner, self.norm = nn.Linear(8, 6), nn.LayerNorm(6)
        self.out, self.spare = nn.Linear(6, 6), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.body(x)).relu()
        y = self.norm(self.inner(x.mean((2, 3))))
        y = y[:, None] * torch.linalg.matrix_exp(y[:, :, None] * y[:, None])
        return self.out(y).sum(1)


def program_of(name: str, *shape: int) -> Program:
    return capture(build(name, {}, seed=0).module, [InputSpec("x", (None, *shape))])


@pytest.fixture(scope="module")
def lenet() -> Program:
    return program_of("lenet5", 1, 28, 28)


@pytest.fixture(scope="module")
def branched() -> Analysis:
    return analyze(capture(Branched(), [InputSpec("x", (None, 3, 6, 6))]))


def test_lenet_is_described_in_full(lenet: Program) -> None:
    found = analyze(lenet)
    assert (found.n_params, found.macs, found.n_units, found.n_zeroed) == (431_080, 2_293_000, 570, 0)
    assert [(r.name, r.kind, r.params, r.macs) for r in found.layers] == [
        ("conv1", "conv2d", 520, 288_000),
        ("conv2", "conv2d", 25_050, 1_600_000),
        ("fc1", "linear", 400_500, 400_000),
        ("fc2", "linear", 5_010, 5_000),
    ]
    assert [(r.n_filters, r.n_prunable, r.pinned) for r in found.layers] == [
        (20, 20, None), (50, 50, None), (500, 500, None), (10, 0, "output of the network"),
    ]  # fmt: skip
    assert found.layers[0].output_shape == (None, 20, 24, 24)
    assert found.prunable_params == 431_080 - 10, "all but the biases of the outputs"
    assert found.unknown_operators == () and found.notes == () and found.metrics is None


def test_groups_say_which_layers_share_units_and_what_a_unit_is_worth(lenet: Program) -> None:
    groups = {g.layers: (g.n_units, g.params_per_unit) for g in analyze(lenet).groups}
    assert groups == {
        ("conv1", "conv2"): (20, 26 + 50 * 25),
        ("conv2", "fc1"): (50, 501 + 16 * 500),
        ("fc1", "fc2"): (500, 801 + 10),
    }
    assert analyze(lenet).groups[0].layers == ("conv2", "fc1"), "the largest saving first"


def test_residual_layers_share_one_group(branched: Analysis) -> None:
    assert ("stem", "body", "inner") in [group.layers for group in branched.groups]


def test_pins_give_the_place_in_the_users_source_and_the_reason(branched: Analysis) -> None:
    pins = {(row.reason, row.where.split(" at ")[0]): row for row in branched.pins}
    norm = next(
        row for (reason, layer), row in pins.items() if "normalised over 6 features" in reason and layer == "norm"
    )
    assert "test_analyze.py:" in norm.where and "self.norm(self.inner(x.mean((2, 3))))" in norm.where
    assert any("output of the network" in row.reason for row in branched.pins)
    assert not any(row.reason in ("kernel window", "the only index") for row in branched.pins)
    assert all(row.n_indices > 0 for row in branched.pins)


def test_unknown_operators_and_what_was_left_out_are_listed(branched: Analysis) -> None:
    assert branched.unknown_operators == ("aten.linalg_matrix_exp.default",)
    assert any("spare.weight, spare.bias" in note for note in branched.notes)


def test_an_operator_without_a_rule_is_counted_where_it_stands_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.matrix_exp(self.two(torch.linalg.matrix_exp(self.one(x))))

    found = analyze(capture(Twice(), [InputSpec("x", (None, 3, 3))]))
    assert found.unknown_operators == ("aten.linalg_matrix_exp.default (2x)",)


def test_what_multiplies_nothing_has_no_macs_and_a_scalar_is_one_filter(branched: Analysis) -> None:
    assert {row.name: row.macs for row in branched.layers}["norm"] == 0

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.matrix = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(4, 3))
            self.product = nn.Parameter(torch.ones(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return (x.unsqueeze(-1) * self.matrix).sum(1) * self.scale + x @ self.product

    rows = {row.name: row for row in analyze(capture(Scaled(), [InputSpec("x", (None, 4))])).layers}
    assert (rows["scale"].n_filters, rows["scale"].n_prunable) == (1, 0)
    assert (rows["matrix"].n_filters, rows["matrix"].pinned) == (4, "input of the network"), "of equals the first"
    assert (rows["product"].n_filters, rows["product"].pinned) == (3, "output of the network"), "a linear layer"


def test_masks_show_as_sparsity(lenet: Program) -> None:
    mask = torch.ones(500, 800, dtype=torch.bool)
    mask[:, :200] = False
    found = analyze(lenet.replace(masks={"fc1.weight": mask}).clone().apply_masks())
    by_name = {row.name: row for row in found.layers}
    assert found.n_zeroed == by_name["fc1"].n_zeroed == 100_000
    assert by_name["fc1"].sparsity == pytest.approx(100_000 / 400_500) and by_name["conv1"].sparsity == 0


def test_data_gives_metrics(lenet: Program) -> None:
    x = torch.randn(12, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    part = Arrays(x, torch.zeros(12, dtype=torch.int64))
    found = analyze(lenet, data=ArraySource("noise", part, part, 10))
    assert found.metrics is not None and found.metrics["n"] == 12


def test_a_network_without_units_is_analysed_too() -> None:
    found = analyze(capture(nn.Linear(4, 3), [InputSpec("x", (None, 4))]))
    assert (found.n_units, found.prunable_params, found.groups) == (0, 0, ())
    assert {row.reason for row in found.pins} == {"input of the network", "output of the network"}


def test_analysing_changes_nothing(lenet: Program) -> None:
    before = {name: tensor.clone() for name, tensor in lenet.module.tensors().items()}
    analyze(lenet)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lenet.module.tensors().items())
    assert not lenet.module.training


def test_a_recurrent_layer_is_one_layer_of_a_group() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rnn = nn.Linear(4, 6), nn.LSTM(6, 5, num_layers=2, batch_first=True)
            self.end = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.rnn(self.first(x))[0][:, -1])

    found = analyze(capture(Net().eval(), InputSpec("x", (None, 3, 4))))
    assert {group.layers for group in found.groups} == {("first", "rnn"), ("rnn", "end")}
    assert {layer for group in found.groups for layer in group.layers} <= {row.name for row in found.layers}
