"""Small networks of every kind that an export must get right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.data.arrays import Arrays, ArraySource
from compressor.program import InputSpec, Program, capture


class Plain(nn.Module):
    """Convolution and two linear layers, nothing that an exporter folds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.hidden = nn.Linear(4 * 6 * 6, 12)
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).flatten(1)
        return self.out(torch.relu(self.hidden(x)))


class Normalised(nn.Module):
    """Two convolutions with batch normalisation, in place, dropout, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop, self.out = nn.Dropout(), nn.Linear(4, 5)
        for bn in (self.bn1, self.bn2):
            bn.register_buffer("running_mean", torch.empty(4).uniform_(-1, 1))
            bn.register_buffer("running_var", torch.empty(4).uniform_(0.5, 2))
            nn.init.uniform_(bn.bias, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.bn1(self.conv1(x)))
        x = torch.relu_(x + self.bn2(self.conv2(x)))
        return self.out(self.drop(x.mean((2, 3))))


class Several(nn.Module):
    """Two inputs; a dictionary of outputs, one with an input's name, one an input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.project, self.side = nn.Embedding(11, 8), nn.Linear(8, 6), nn.Linear(4, 6)
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, ids: Tensor, x: Tensor) -> dict[str, Tensor]:
        mixed = self.project(self.table(ids)).mean(1) + self.side(x)
        return {"ids": mixed * self.weight, "pooled": mixed.mean(1), "same": x}


class FixedBatch(nn.Module):
    """A reshape that writes the batch into the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.reshape(1, 16))


_NETS: dict[str, tuple[Callable[[], nn.Module], tuple[InputSpec, ...]]] = {
    "plain": (Plain, (InputSpec("x", (None, 1, 8, 8)),)),
    "normalised": (Normalised, (InputSpec("x", (None, 1, 8, 8)),)),
    "several": (Several, (InputSpec("ids", (None, 5), "int64", 11), InputSpec("x", (None, 4)))),
    "fixed-batch": (FixedBatch, (InputSpec("x", (None, 4, 4)),)),
}


def digits(shape: tuple[int, ...] = (1, 8, 8)) -> ArraySource:
    """Thirty samples of five classes."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn((30, *shape), generator=generator), torch.randint(0, 5, (30,), generator=generator)
    return ArraySource("fake", Arrays(x, y), Arrays(x, y), 5)


@pytest.fixture
def data() -> ArraySource:
    """What the networks `plain` and `normalised` read."""
    return digits()


@pytest.fixture
def program_of() -> Callable[[str], Program]:
    """The program of a network by its name, always with the same weights."""

    def build(name: str) -> Program:
        construct, inputs = _NETS[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return capture(construct(), inputs)

    return build
