"""Tiny data and networks, and a progress listener that can break a run off."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.data.arrays import Arrays, ArraySource
from compressor.program import InputSpec, Program, capture
from compressor.progress import Silent


class Tiny(nn.Module):
    """Two convolutions with batch norm and a shortcut, two linear layers with dropout, on (N, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.bn1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.two, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.hidden, self.out = nn.Dropout(0.2), nn.Linear(128, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.one(x)).relu(), 2)
        x = (x + self.bn2(self.two(x))).relu()
        return self.out(self.drop(self.hidden(x.flatten(1)).relu()))


def _tiny(seed: int = 0) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = Tiny()
    return capture(net, [InputSpec("x", (None, 1, 8, 8))])


@pytest.fixture(scope="session")
def _tiny_once() -> Program:
    return _tiny()


@pytest.fixture
def tiny(_tiny_once: Program) -> Program:
    return _tiny_once.clone()


@pytest.fixture
def other_tiny() -> Program:
    """The same network with other weights."""
    return _tiny(1)


def _split(n: int, seed: int) -> Arrays:
    random = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (n,), generator=random)
    x = 0.3 * torch.randn(n, 1, 8, 8, generator=random)
    for i, label in enumerate(target):
        x[i, 0, 2 * int(label) : 2 * int(label) + 3] += 1
    return Arrays(x, target)


@pytest.fixture(scope="session")
def data() -> ArraySource:
    """Three classes told apart by which rows are bright."""
    return ArraySource("stripes", _split(160, 0), _split(60, 1), 3)


class Stop(Exception):
    """The run was broken off."""


class BreakAfter(Silent):
    """Raises once `n` steps are done: what Ctrl-C does to a run."""

    def __init__(self, n: int) -> None:
        self.left = n

    def advance(self, n: int = 1, /, **values: float) -> None:
        self.left -= n
        if self.left < 0:
            raise Stop("broken off")


@pytest.fixture
def break_after() -> Callable[[int], BreakAfter]:
    return BreakAfter


@pytest.fixture
def stopped() -> type[Exception]:
    return Stop
