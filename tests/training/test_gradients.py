"""Gradient moments against autograd, and that taking them leaves everything as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressor.data import open_task
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import DataError, TrainingError
from compressor.training import gradient_moments


def source(n: int = 12) -> ArraySource:
    random = torch.Generator().manual_seed(0)
    part = Arrays(torch.randn(n, 4, generator=random), torch.randint(0, 3, (n,), generator=random))
    return ArraySource("points", part, part, 3)


def net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))


def test_moments_are_means_over_batches() -> None:
    module, data, task = net(), source(), open_task(None)
    got = gradient_moments(module, data, task, n_batches=3, batch_size=4, seed=2)
    gradients = []
    for batch in data.batches("train", 4, seed=2):
        module.zero_grad()
        task.loss(module(*batch.inputs), batch).backward()
        gradients.append(module[0].weight.grad.clone())
    stacked = torch.stack(gradients)
    assert torch.allclose(got["0.weight"][0], stacked.abs().mean(0))
    assert torch.allclose(got["0.weight"][1], stacked.square().mean(0))


def test_nothing_is_left_behind() -> None:
    module, rng = net(), torch.get_rng_state()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    gradient_moments(module, source(), open_task(None), n_batches=2, batch_size=4)
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters()) and not module.training
    assert torch.equal(torch.get_rng_state(), rng)


def test_frozen_parameters_have_no_moments() -> None:
    module = net()
    module[0].weight.requires_grad_(False)
    assert "0.weight" not in gradient_moments(module, source(), open_task(None), n_batches=1, batch_size=4)


def test_the_same_seed_gives_the_same_and_another_not() -> None:
    def of(seed: int) -> torch.Tensor:
        return gradient_moments(net(), source(40), open_task(None), n_batches=1, batch_size=8, seed=seed)["0.weight"][0]

    assert torch.equal(of(1), of(1)) and not torch.equal(of(1), of(2))


def test_a_broken_network_is_named() -> None:
    module = net()
    with torch.no_grad():
        module[3].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="its gradient is not finite"):
        gradient_moments(module, source(), open_task(None), n_batches=1, batch_size=4)


def test_no_batches_are_a_data_error() -> None:
    with pytest.raises(DataError, match="points: the train split is empty; there is nothing to take gradients on"):
        gradient_moments(net(), source(), open_task(None), n_batches=0)


def test_batches_of_one_give_the_moments_of_samples() -> None:
    """What the Fisher diagonal is made of; the square of a batch's mean gradient is smaller."""
    module, data, task = net(), source(), open_task(None)
    single = gradient_moments(module, data, task, n_batches=12, batch_size=1, seed=2)["0.weight"][1]
    squares = []
    for x, y in zip(*data.train, strict=True):
        module.zero_grad()
        torch.nn.functional.cross_entropy(module(x[None]), y[None]).backward()
        squares.append(module[0].weight.grad.square())
    assert torch.allclose(single, torch.stack(squares).mean(0))
    batches = gradient_moments(module, data, task, n_batches=3, batch_size=4, seed=2)["0.weight"][1]
    assert (batches.sum() < 0.9 * single.sum()).item()
