from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.data.source import Batch, Split
from compressor.data.task import Classification


class MemorySource:
    """Random images whose class is the brightest of the first pixels, so that there is something to learn."""

    ref = "memory"

    def __init__(self, n_train: int = 96, n_val: int = 40, shape: tuple[int, ...] = (12,)) -> None:
        self.n_train, self.n_val, self.n_classes, self.input_shapes = n_train, n_val, 4, (shape,)
        generator = torch.Generator().manual_seed(7)
        self.inputs = {
            "train": torch.randn(n_train, *shape, generator=generator),
            "val": torch.randn(n_val, *shape, generator=generator),
        }

    def batches(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        augment: bool = False,
        limit: int | None = None,
        device: str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        x = self.inputs[split][:limit]
        if split == "train" and seed is not None:
            generator = torch.Generator().manual_seed(1000 * seed + epoch)
            x = x[torch.randperm(len(x), generator=generator)]
        rank, world = shard
        for part in x[rank::world].split(batch_size):
            if len(part):
                yield Batch((part.to(device),), part.flatten(1)[:, :4].argmax(1).to(device))


class BadLossAfter(Classification):
    """Classification whose loss is not a number from the n-th call on."""

    def __init__(self, n_good: int) -> None:
        self.n_left = n_good

    def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        self.n_left -= 1
        return super().loss(outputs, batch, smoothing=smoothing) * (1.0 if self.n_left >= 0 else float("nan"))


def _net(seed: int = 0, dropout: float = 0.3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4))


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def data() -> MemorySource:
    return MemorySource()


@pytest.fixture
def make_data() -> Callable[..., MemorySource]:
    return MemorySource


@pytest.fixture
def task() -> Classification:
    return Classification()


@pytest.fixture
def bad_loss_after() -> Callable[[int], BadLossAfter]:
    return BadLossAfter


@pytest.fixture
def make_net() -> Callable[..., nn.Module]:
    return _net


@pytest.fixture
def weights_of() -> Callable[[nn.Module], dict[str, Tensor]]:
    return _weights


@pytest.fixture
def same_weights() -> Callable[[dict[str, Tensor], dict[str, Tensor]], bool]:
    return _same
