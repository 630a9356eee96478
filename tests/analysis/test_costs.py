"""What layers cost, dense and under masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.analysis import layer_costs
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.models import build
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import apply_masks, make_selector
from tests.choices import choice_of


def lenet() -> Program:
    return capture(build("lenet5", {}, seed=0).module, [InputSpec("x", (None, 1, 28, 28))])


def test_a_dense_network_keeps_everything() -> None:
    costs = layer_costs(lenet())
    assert [(c.name, c.params, c.macs) for c in costs][:2] == [("conv1", 520, 288_000), ("conv2", 25_050, 1_600_000)]
    assert all((c.kept_params, c.kept_macs) == (c.params, c.macs) for c in costs)


def test_what_masks_leave_is_what_compaction_leaves() -> None:
    program = lenet()
    selector = make_selector(program, find_units(program), choice_of("channel"))
    masks = selector.select(program.parameters, 5.0).masks
    apply_masks(program.module, masks)
    masked = program.replace(masks=masks)
    small, _ = compact(masked)
    left = [(c.name, c.kept_params, c.kept_macs) for c in layer_costs(masked)]
    assert left == [(c.name, c.params, c.macs) for c in layer_costs(small)]
    assert left != [(c.name, c.params, c.macs) for c in layer_costs(masked)]


class Norms(nn.Module):
    """One norm behind a convolution, one behind a sum: the first belongs to its layer, the second to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.bn, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.after, self.up = nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.one(x)).relu()
        return self.up(self.after(x + self.two(x)))


def test_a_norm_is_of_the_layer_whose_output_it_reads() -> None:
    costs = {c.name: c for c in layer_costs(capture(Norms().eval(), [InputSpec("x", (None, 3, 8, 8))]))}
    assert {name: c.of for name, c in costs.items()} == {"one": "", "bn": "one", "two": "", "after": "", "up": ""}
    filters = {name: c.filters for name, c in costs.items()}
    assert filters == {"one": (8, 8), "bn": None, "two": (8, 8), "after": None, "up": (4, 4)}


def test_filters_that_masks_leave_are_counted() -> None:
    program = lenet()
    mask = torch.ones(20, 1, 5, 5, dtype=torch.bool)
    mask[:5] = False
    apply_masks(program.module, {"conv1.weight": mask})
    assert layer_costs(program.replace(masks={"conv1.weight": mask}))[0].filters == (20, 15)


class Mixed(nn.Module):
    """Layers that have no dimension of channels: behind a linear one, whose norm they are not, and before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 8), nn.LayerNorm(3)
        self.gru, self.cell = nn.GRU(8, 5, batch_first=True), nn.LSTMCell(5, 4)
        self.pair = nn.Bilinear(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(self.first(x))[0][:, -1]
        h = self.cell(y)[0]
        return self.norm(self.pair(h, h))


def test_layers_that_multiply_are_rows_of_their_own_whatever_they_lack() -> None:
    costs = {cost.name: cost for cost in layer_costs(capture(Mixed().eval(), [InputSpec("x", (None, 7, 6))]))}
    assert {name: cost.of for name, cost in costs.items()} == {
        "first": "", "norm": "pair", "gru": "", "cell": "", "pair": "",
    }  # fmt: skip
    assert {name: cost.filters for name, cost in costs.items()} == {
        "first": (8, 8), "norm": None, "gru": (15, 15), "cell": (16, 16), "pair": (3, 3),
    }  # fmt: skip
