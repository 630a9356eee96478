"""Batch-norm statistics after a cut: those of the data, of all batches alike, and of nothing but batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.data import Batch
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


def source(n: int = 24, scale: float = 1.0, shift: float = 0.0) -> ArraySource:
    random = torch.Generator().manual_seed(0)
    points = 3 + 2 * torch.randn(n, 4, generator=random)
    part = Arrays(scale * points + shift, torch.zeros(n, dtype=torch.int64))
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


def statistics(net: Program) -> tuple[Tensor, Tensor]:
    tensors = net.module.tensors()
    return tensors["norm.running_mean"], tensors["norm.running_var"]


def cut(net: Program) -> Program:
    """The same with a smaller first layer, as a cut before it leaves it."""
    smaller = net.clone()
    smaller.parameters["one.weight"].data[:, 0] = 0
    return smaller


def test_a_network_that_nothing_happened_to_keeps_its_statistics() -> None:
    dense = program()
    recalibrate(dense, source(scale=1.5, shift=-1), n_batches=3, batch_size=8)
    net = dense.clone()
    assert recalibrate(net, source(), n_batches=3, batch_size=8, reference=dense) == 1
    assert all(torch.equal(*pair) for pair in zip(statistics(net), statistics(dense), strict=True))


def test_the_reference_says_what_the_images_of_training_were_like() -> None:
    dense = program()
    recalibrate(dense, source(scale=1.5, shift=-1), n_batches=3, batch_size=8)
    right, plain, corrected = cut(dense), cut(dense), cut(dense)
    recalibrate(right, source(scale=1.5, shift=-1), n_batches=3, batch_size=8)
    recalibrate(plain, source(), n_batches=3, batch_size=8)
    recalibrate(corrected, source(), n_batches=3, batch_size=8, reference=dense)
    (mean, var), (far_mean, far_var), (near_mean, near_var) = map(statistics, (right, plain, corrected))
    assert torch.allclose(near_var, var, rtol=1e-4) and not torch.allclose(far_var, var, rtol=0.5)
    assert (near_mean - mean).norm() < 0.7 * (far_mean - mean).norm()


def test_a_channel_that_is_constant_in_the_reference_is_measured_anew() -> None:
    dense, net = program(), program()
    dense.parameters["one.weight"].data[1] = 0
    with_it, without = net.clone(), net.clone()
    recalibrate(with_it, source(), n_batches=3, batch_size=8, reference=dense)
    recalibrate(without, source(), n_batches=3, batch_size=8)
    for got, anew in zip(statistics(with_it), statistics(without), strict=True):
        assert got[1] == anew[1] and got[0] != anew[0] and got.isfinite().all()


def test_a_reference_with_other_norms_says_nothing() -> None:
    net, other = program(), program()
    recalibrate(net, source(), n_batches=3, batch_size=8, reference=program(track=False))
    recalibrate(other, source(), n_batches=3, batch_size=8)
    assert all(torch.equal(*pair) for pair in zip(statistics(net), statistics(other), strict=True))


class Doubled(ArraySource):
    """Points whose augmentation doubles them."""

    def batches(self, *args: Any, augment: bool = False, **options: Any) -> Iterator[Batch]:
        for batch in super().batches(*args, **options):
            yield Batch((batch.inputs[0] * (2 if augment else 1),), batch.target)


def test_without_a_reference_the_batches_are_those_of_training() -> None:
    plain = source()
    data = Doubled("points", plain.train, plain.val, 2)
    doubled, other, told = program(), program(), program()
    recalibrate(doubled, data, n_batches=3, batch_size=8, augment=True)
    recalibrate(other, source(scale=2), n_batches=3, batch_size=8)
    recalibrate(told, data, n_batches=3, batch_size=8, augment=True, reference=program())
    assert torch.allclose(statistics(doubled)[1], statistics(other)[1])
    assert torch.equal(statistics(told)[1], statistics(program())[1]), "with a reference both see plain points"


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
