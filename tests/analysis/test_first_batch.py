"""What does not fit is told about the data, before any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.analysis.first_batch import first_metrics
from compressor.data import Classification
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import DataError
from compressor.program import InputSpec


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Own(Classification):
    name = "own"
    primary = "hits"

    def __init__(self, loss: Callable[..., Any] | None = None, metrics: Any = None) -> None:
        self.own_loss, self.own_metrics = loss, metrics

    def loss(self, outputs: Any, batch: Any, *, smoothing: float = 0.0) -> Any:
        return outputs.mean() if self.own_loss is None else self.own_loss(outputs)

    def metrics(self, outputs: Any, batch: Any) -> Any:
        return {"hits": (1.0, 2)} if self.own_metrics is None else self.own_metrics


def data(x: Tensor | None = None, y: Tensor | None = None, n_classes: int | None = None) -> ArraySource:
    x = torch.zeros(4, 4) if x is None else x
    y = torch.arange(4) % 3 if y is None else y
    return ArraySource("d.npz", Arrays(x, y), Arrays(x, y), n_classes)


INPUT = (InputSpec("x", (None, 4)),)


def test_what_fits_gives_the_names_of_its_metrics() -> None:
    assert first_metrics(Net(), INPUT, data(), Classification()).keys() == {"loss", "accuracy"}
    assert first_metrics(Net(), INPUT, data(y=torch.rand(4)), Own())["hits"] == 0.5


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (data(x=torch.zeros(4, 5)), r"d\.npz: train: gives inputs of 5 but the model takes 4 \(x\)"),
        (data(x=torch.zeros(4, 4, dtype=torch.int64)), r"gives int64 inputs but the model takes float32 \(x\)"),
        (data(x=torch.zeros(4, 4, dtype=torch.float64)), "the model cannot take the first train samples"),
        (data(y=torch.rand(4)), "classification needs integer labels, the data have float32"),
        (data(y=torch.zeros(4, 2, dtype=torch.int64)), r"outputs \(2, 3\) and labels \(2, 2\) do not fit"),
        (data(n_classes=5), r"has 5 classes but the model has 3 outputs"),
        (data(y=torch.full((4,), 7)), "labels go up to 7 but the model has 3 outputs"),
        (data(y=torch.full((4,), -1)), "labels go down to -1"),
    ],
)
def test_data_that_do_not_fit(source: ArraySource, told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        first_metrics(Net(), INPUT, source, Classification())
    assert str(caught.value).count("\n") <= 2


def test_the_number_of_inputs_is_looked_at() -> None:
    two = (*INPUT, InputSpec("mask", (None, 4)))
    with pytest.raises(DataError, match="gives 1 inputs but the model takes 2: x, mask"):
        first_metrics(Net(), two, data(), Classification())


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (Own(loss=lambda o: o["logits"]), r"task own raised .* on outputs float32 2×3 and targets int64 2"),
        (Own(loss=lambda o: o), "loss must be a tensor of one number, got float32 2×3"),
        (Own(loss=lambda o: 3.0), "loss must be a tensor of one number, got float"),
        (Own(metrics={"hits": 3.0}), "metrics must give a dictionary"),
        (Own(metrics=[1]), "metrics must give a dictionary"),
        (Own(metrics={"hits": (torch.ones(2), 3)}), "metrics must give a dictionary"),
        (Own(metrics={"misses": (1.0, 3)}), "its primary metric hits is not one of misses"),
    ],
)
def test_a_task_that_does_not_do_its_part(task: Own, told: str) -> None:
    with pytest.raises(DataError, match=told):
        first_metrics(Net(), INPUT, data(), task)


def test_a_network_for_one_sample_gets_one() -> None:
    seen: list[int] = []

    class Counting(Net):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    first_metrics(Counting(), (InputSpec("x", (1, 4)),), data(), Classification())
    assert seen == [1, 1]
