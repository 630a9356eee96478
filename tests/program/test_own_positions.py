"""Rotary angles of its own for each layer: the same answers, and units that no other layer shares."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.analysis import analyze
from compressor.asking import PruneSettings
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.program import InputSpec, Program, capture, own_positions
from compressor.pruning import prune

WIDTH, HEADS, HEAD = 16, 2, 8


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        n, t, _ = x.shape
        query, key, value = (layer(x).view(n, t, HEADS, HEAD).transpose(1, 2) for layer in (self.q, self.k, self.v))
        query, key = (self._turned(part, *angles) for part in (query, key))
        out = F.scaled_dot_product_attention(query, key, value)
        return x + self.o(out.transpose(1, 2).reshape(n, t, WIDTH))

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = HEAD // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Rotary(nn.Module):
    """Angles computed once, as in Llama; `n_layers` read them."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.layers = nn.ModuleList(Layer() for _ in range(n_layers))
        self.register_buffer("inv_freq", 10 ** -torch.arange(HEAD // 2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * self.inv_freq
        angles = torch.cat([angles, angles], -1)
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x, (angles.cos()[None, None], angles.sin()[None, None]))
        return self.head(x)


def program_of(n_layers: int) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return capture(Rotary(n_layers).double().eval(), [InputSpec("x", (None, 7, 5), "float64")])


def n_rotary_units(program: Program) -> int:
    """Units of the queries' rows, over all layers."""
    units = find_units(program)
    rows = [units.axes[name, 0] for name in program.parameters if name.endswith("q.weight")]
    return len({int(unit) for of_index in rows for unit in of_index if unit >= 0})


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_every_layer_has_rotary_units_of_its_own(n_layers: int) -> None:
    program = program_of(n_layers)
    alone = own_positions(program)
    x = program.example_inputs(3)
    assert torch.equal(alone.module(*x), program.module(*x))
    assert n_rotary_units(program) == HEAD // 2 and n_rotary_units(alone) == n_layers * HEAD // 2
    assert alone.n_parameters == program.n_parameters


def test_layers_lose_different_features_exactly() -> None:
    program = program_of(2)
    with torch.no_grad():
        for layer, weak in enumerate((0, 2)):
            for name in (f"layers.{layer}.{part}" for part in ("q", "k")):
                weight, bias = (program.module.get_parameter(f"{name}.{part}") for part in ("weight", "bias"))
                weight.view(HEADS, 2, HEAD // 2, WIDTH)[:, :, weak].mul_(1e-3)
                bias.view(HEADS, 2, HEAD // 2)[:, :, weak].zero_()
    scope = ("layers.*.q", "layers.*.k")
    settings = PruneSettings(ratio=1.3, pattern="filter", method="magnitude", scope=scope, round_to=1)
    pruned, report = prune(program, settings)
    small, proof = compact(pruned)
    assert proof.agreement is not None and small.n_parameters == report.compact_params
    kept = [small.record.kept[f"layers.{layer}.q.weight"]["0"] for layer in (0, 1)]
    assert 0 not in kept[0] and 2 not in kept[1] and 0 in kept[1] and 2 in kept[0]


def test_analyze_offers_what_prune_takes() -> None:
    found = [group for group in analyze(program_of(2)).groups if len(group.layers) == 2]
    assert {group.layers: group.n_units for group in found if group.layers[0].endswith(".q")} == {
        (f"layers.{layer}.q", f"layers.{layer}.k"): HEAD // 2 for layer in (0, 1)
    }


def test_what_no_two_places_share_stays_as_it_is() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.register_buffer("scale", torch.rand(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.fc(x) * self.scale.abs())

    program = capture(Plain().eval(), [InputSpec("x", (None, 4))])
    assert own_positions(program) is program
