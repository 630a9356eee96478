"""What `analyze` offers is what `prune` can take: on networks whose weights are computed, in whatever form they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compressor
from compressor.analysis import analyze
from compressor.axes import find_units
from compressor.errors import PatternError, RatioError
from compressor.program import InputSpec, Program, capture, find_layers
from compressor.sparsity import free_units

IMAGE, TOKENS = InputSpec("x", (None, 3, 8, 8)), InputSpec("x", (None, 5, 8))


class Dynamic(nn.Module):
    """Kernels that are mixed for each sample, which lie flat while they are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.weight = nn.Conv2d(3, 16, 3, padding=1), nn.Parameter(torch.randn(4, 24, 16, 3, 3))
        self.one, self.two, self.out = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        b, c, h, w = x.shape
        mix = self.two(F.relu(self.one(F.adaptive_avg_pool2d(x, 1)))).view(b, -1).softmax(1)
        weight = torch.mm(mix, self.weight.view(4, -1)).view(b * 24, 16, 3, 3)
        y = F.conv2d(x.reshape(1, b * c, h, w), weight, padding=1, groups=b).view(b, 24, h, w)
        return self.out(F.relu(y)).mean((2, 3))


class Generated(nn.Module):
    """A layer whose weight another one makes of a code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(12, 4)
        self.latent, self.make = nn.Parameter(torch.randn(12, 6)), nn.Linear(6, 16 * 9)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.make(self.latent).view(12, 16, 3, 3)
        return self.out(F.relu(F.conv2d(F.relu(self.a(x)), weight, padding=1)).mean((2, 3)))


class Experts(nn.Module):
    """Experts whose weights lie in one tensor each, (expert, in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.out = nn.Linear(8, 3), nn.Linear(8, 4)
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 20)), nn.Parameter(torch.randn(3, 20, 8))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(torch.einsum("btd,edh->bteh", x, self.up))
        made = torch.einsum("bteh,ehd->bted", hidden, self.down)
        return self.out((made * self.gate(x).softmax(-1).unsqueeze(-1)).sum(2))


class Modulated(nn.Module):
    """A constant that is learned, scaled by the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.const, self.style, self.out = nn.Parameter(torch.randn(1, 16, 4, 4)), nn.Linear(8, 16), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.const * self.style(x.mean(1))[:, :, None, None]))


class OneChannel(nn.Module):
    """Gates of one channel: units, and all there is of their width."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 1, 1), nn.Conv2d(8, 4, 1)
        self.scale = nn.Parameter(torch.rand(1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a(x) * self.gate(x) * self.scale)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], InputSpec]] = {
    "dynamic convolution": (Dynamic, IMAGE),
    "hypernetwork": (Generated, IMAGE),
    "experts": (Experts, TOKENS),
    "modulated constant": (Modulated, TOKENS),
    "gates of one channel": (OneChannel, IMAGE),
    "LSTM": (lambda: Recurrent(), TOKENS),
}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(8, 12, proj_size=6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def made(name: str) -> Program:
    torch.manual_seed(0)
    model, spec = NETWORKS[name]
    return capture(model(), [spec])


def largest_ratio(program: Program) -> float:
    """The largest that `prune` says it can do."""
    try:
        compressor.prune(program, compressor.PruneSettings(ratio=1e6, method="magnitude", floor=0.0))
    except RatioError as error:
        return float(str(error).split("largest feasible is ")[1].split("x")[0])
    except PatternError:
        return 1.0
    raise AssertionError("a million-fold ratio was reached")


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_offered_can_be_taken(name: str) -> None:
    program = made(name)
    offered = analyze(program).prunable_params / program.n_parameters
    taken = 1 - 1 / largest_ratio(program)
    assert taken <= offered + 1e-3
    assert (taken > 0) == (offered > 0)
    assert taken >= 0.5 * offered, f"{offered:.1%} is offered and {taken:.1%} can be taken"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_unit_belongs_to_some_layer(name: str) -> None:
    """But for those that are all of their width, which have to stay."""
    program = made(name)
    units, layers = find_units(program), find_layers(program)
    free = free_units(units, layers, {layer.name for layer in layers}, set())
    alone = [unit for members in units.groups if len(members) == 1 for unit in members]
    alone += [int(members[0]) for _, members in units.widths if len(members) == 1]
    assert set(np.flatnonzero(~free)) == set(alone)
    nothing = free_units(units, layers, {layer.name for layer in layers}, {layer.name for layer in layers})
    assert not nothing.any()


def test_a_unit_that_no_layer_produces_follows_the_scope_of_its_readers() -> None:
    program = made("experts")
    units, layers = find_units(program), find_layers(program)
    hidden = units.axes["up", 2]
    assert (hidden >= 0).all()
    assert free_units(units, layers, {"up"}, set())[hidden].all()
    assert not free_units(units, layers, {"out"}, set())[hidden].any()
    assert not free_units(units, layers, {layer.name for layer in layers}, {"down"})[hidden].any()


def test_a_code_is_no_weight_of_the_layer_that_reads_it() -> None:
    layers: dict[str, Any] = {layer.name: layer for layer in find_layers(made("hypernetwork"))}
    assert "latent" not in layers["make"].tensors and "latent" in layers
