"""Batch-norm statistics after a cut: those of the data, of all batches alike, and of nothing but batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import DataError
from compressor.program import InputSpec, Program, capture
from compressor.pruning.recalibrate import recalibrate


class Normed(nn.Module):
    def __init__(self, track: bool = True) -> None:
        super().__init__()
        self.one = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3, track_running_stats=track)
        self.drop, self.two = nn.Dropout(0.5), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.drop(self.norm(self.one(x))))


def source(n: int = 24) -> ArraySource:
    random = torch.Generator().manual_seed(0)
    part = Arrays(3 + 2 * torch.randn(n, 4, generator=random), torch.zeros(n, dtype=torch.int64))
    return ArraySource("points", part, part, 2)


def program(**options: bool) -> Program:
    torch.manual_seed(0)
    return capture(Normed(**options), [InputSpec("x", (None, 4))])


def test_statistics_become_those_of_the_samples() -> None:
    net, data = program(), source()
    assert recalibrate(net, data, n_batches=3, batch_size=8) == 1
    tensors = net.module.tensors()
    batches = [batch.inputs[0] for batch in data.batches("train", 8, seed=0)]
    hidden = [x @ tensors["one.weight"].T + tensors["one.bias"] for x in batches]
    assert torch.allclose(tensors["norm.running_mean"], torch.cat(hidden).mean(0), atol=1e-5)
    within = torch.stack([h.var(0) for h in hidden]).mean(0)
    between = torch.stack([h.mean(0) for h in hidden]).var(0, unbiased=False)
    assert torch.allclose(tensors["norm.running_var"], within + between, atol=1e-4)


def test_weights_and_the_graph_stay_and_one_batch_is_not_all() -> None:
    net, other, data = program(), program(), source()
    before = {name: p.detach().clone() for name, p in net.parameters.items()}
    code = net.module.code
    recalibrate(net, data, n_batches=3, batch_size=8)
    recalibrate(other, data, n_batches=1, batch_size=8)
    assert all(torch.equal(before[name], p) for name, p in net.parameters.items()) and net.module.code == code
    means = (p.module.tensors()["norm.running_mean"] for p in (net, other))
    assert not torch.equal(*means)


def test_it_is_deterministic() -> None:
    first, second = program(), program()
    for net in (first, second):
        recalibrate(net, source(), n_batches=2, batch_size=8, seed=3)
    assert torch.equal(first.module.tensors()["norm.running_var"], second.module.tensors()["norm.running_var"])


def test_without_running_statistics_there_is_nothing_to_do() -> None:
    assert recalibrate(program(track=False), source(), n_batches=2) == 0


def test_no_batches_are_a_data_error() -> None:
    with pytest.raises(DataError, match="points: the train split is empty; there is nothing to calibrate on"):
        recalibrate(program(), source(), n_batches=0)
