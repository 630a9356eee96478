from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from compressor.data.task import Classification
from compressor.errors import DataError
from compressor.training import evaluate


def test_metrics_are_means_over_samples_not_over_batches(
    data: Any, task: Any, make_net: Callable[..., nn.Module]
) -> None:
    net = make_net()
    result = evaluate(net, data, task, batch_size=17)
    net.eval()
    (whole,) = data.batches("val", 1000)
    with torch.no_grad():
        outputs = net(*whole.inputs)
    assert result["n"] == 40
    assert result["accuracy"] == int((outputs.argmax(1) == whole.target).sum()) / 40
    assert result["loss"] == pytest.approx(task.loss(outputs, whole).item(), rel=1e-5)
    assert not net.training


def test_nothing_of_the_module_changes(
    data: Any, task: Any, make_net: Callable[..., nn.Module], weights_of: Any, same_weights: Any
) -> None:
    net = make_net()
    before = weights_of(net)
    evaluate(net.train(), data, task)
    assert same_weights(before, weights_of(net))
    assert all(p.grad is None for p in net.parameters())


def test_limit_and_split(data: Any, task: Any, make_net: Callable[..., nn.Module]) -> None:
    assert evaluate(make_net(), data, task, limit=11)["n"] == 11
    assert evaluate(make_net(), data, task, split="train")["n"] == 96


def test_steps_are_told_in_samples(data: Any, task: Any, make_net: Callable[..., nn.Module]) -> None:
    told: list[tuple[int, int]] = []
    evaluate(make_net(), data, task, batch_size=16, on_step=lambda done, total: told.append((done, total)))
    assert told == [(16, 40), (32, 40), (40, 40)]


def test_empty_split_is_an_error(make_data: Any, task: Any, make_net: Callable[..., nn.Module]) -> None:
    with pytest.raises(DataError, match="memory: the val split is empty"):
        evaluate(make_net(), make_data(n_val=0), task)


def test_metric_with_its_own_count(data: Any, make_net: Callable[..., nn.Module]) -> None:
    class PerPixel(Classification):
        def metrics(self, outputs: Any, batch: Any) -> dict[str, tuple[float, int]]:
            return {"bright": (3.0 * len(batch.target), 12 * len(batch.target))}

    assert evaluate(make_net(), data, PerPixel(), batch_size=7)["bright"] == 0.25
