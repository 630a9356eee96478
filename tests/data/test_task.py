"""Tasks: classification against arithmetic by hand, and loading a task of the user."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from compressor.data import Batch, Classification, open_task
from compressor.data.task import means_of
from compressor.errors import DataError

X = torch.zeros(3, 2)
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])


def batch(*labels: int) -> Batch:
    return Batch((X,), torch.tensor(labels))


def test_loss_and_accuracy_by_hand() -> None:
    task = Classification()
    labels = batch(0, 1, 0)
    terms = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(3))]
    assert float(task.loss(LOGITS, labels)) == pytest.approx(sum(terms) / 3, rel=1e-6)
    assert task.metrics(LOGITS, labels) == {"accuracy": (2.0, 3)}
    assert (task.primary, task.higher_is_better) == ("accuracy", True)


def test_smoothing_pulls_towards_the_uniform_distribution() -> None:
    task = Classification()
    sure = torch.tensor([[20.0, 0.0]])
    assert float(task.loss(sure, batch(0), smoothing=0.2)) == pytest.approx(0.1 * 20, rel=1e-4)
    assert float(task.loss(sure, batch(0))) < 1e-6


def test_a_single_output_in_a_tuple_and_dense_labels_are_understood() -> None:
    task = Classification()
    assert task.metrics((LOGITS,), batch(0, 1, 1)) == {"accuracy": (3.0, 3)}
    maps = LOGITS[:, :, None, None].expand(3, 2, 4, 4)
    assert task.metrics(maps, Batch((X,), torch.ones(3, 4, 4).long())) == {"accuracy": (32.0, 48)}


def test_what_does_not_fit_is_named() -> None:
    task = Classification()
    with pytest.raises(DataError, match="labels go up to 9 but the model has 2 outputs"):
        task.loss(LOGITS, batch(0, 9, 1))
    with pytest.raises(DataError, match="labels go up to 2 but the model has 2 outputs"):
        task.metrics(LOGITS, batch(0, 2, 1))
    with pytest.raises(DataError, match="labels go down to -1"):
        task.loss(LOGITS, batch(0, -1, 1))
    with pytest.raises(DataError, match="needs integer labels, the data have float32"):
        task.loss(LOGITS, Batch((X,), torch.zeros(3)))
    with pytest.raises(DataError, match="reads one tensor, the model returns 2 values"):
        task.loss((LOGITS, LOGITS), batch(0, 1, 1))
    with pytest.raises(DataError, match=r"outputs \(3, 2\) and labels \(2,\) do not fit"):
        task.loss(LOGITS, batch(0, 1))


def test_perplexity_by_hand_of_the_tokens_that_are_asked_for() -> None:
    task = open_task("causal-lm")
    outputs = torch.stack([LOGITS, LOGITS.flip(0)])
    labels = Batch((X,), torch.tensor([[0, 1, -100], [-100, -100, 0]]))
    nats = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))
    assert float(task.loss(outputs, labels)) == pytest.approx(nats / 3, rel=1e-6)
    sums = task.metrics(outputs, labels)
    assert sums["accuracy"] == (3.0, 3) and sums["perplexity"] == pytest.approx((nats, 3), rel=1e-6)
    assert means_of(task, sums)["perplexity"] == pytest.approx(math.exp(nats / 3), rel=1e-6)
    assert (task.primary, task.higher_is_better) == ("perplexity", False)


def test_tokens_of_which_none_is_asked_for_count_nothing() -> None:
    task = open_task("masked-lm")
    nothing = Batch((X,), torch.full((1, 3), -100))
    sums = task.metrics(LOGITS[None], nothing)
    assert sums == {"perplexity": (0.0, 0), "accuracy": (0.0, 0)}
    assert means_of(task, sums) == {"perplexity": 1.0, "accuracy": 0.0}


@pytest.mark.parametrize("outputs", [LOGITS, (LOGITS[None], LOGITS[None]), LOGITS[None, :2], LOGITS[None, :, :, None]])
def test_scores_that_do_not_fit_the_tokens_are_named(outputs: object) -> None:
    with pytest.raises(DataError, match=r"--task masked-lm reads \(N, T, tokens\), the model returns"):
        open_task("masked-lm").loss(outputs, Batch((X,), torch.zeros(1, 3, dtype=torch.int64)))


def test_the_default_task() -> None:
    assert isinstance(open_task(None), Classification)
    assert isinstance(open_task("classification"), Classification)


def test_a_task_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch.nn.functional as F\n"
        "class Regression:\n"
        "    name, primary, higher_is_better = 'regression', 'error', False\n"
        "    def loss(self, outputs, batch, *, smoothing=0.0):\n"
        "        return F.mse_loss(outputs, batch.target)\n"
        "    def metrics(self, outputs, batch):\n"
        "        error = (outputs - batch.target).square().sum()\n"
        "        return {'error': (float(error), batch.target.numel())}\n"
        "ready = Regression()\n"
        "class Half:\n"
        "    name = 'half'\n"
        "    loss = None\n"
        "class Needs:\n"
        "    def __init__(self, width): ...\n"
    )
    for name in ("Regression", "ready"):
        task = open_task(f"mine.py:{name}", base=tmp_path, trust_code=True)
        assert (task.name, task.higher_is_better) == ("regression", False)
        assert task.metrics(X + 2, Batch((X,), X)) == {"error": (24.0, 6)}
    with pytest.raises(DataError, match="not a task, it lacks primary, higher_is_better, metrics"):
        open_task(f"{tmp_path}/mine.py:Half", trust_code=True)
    with pytest.raises(DataError, match="creating it raised TypeError"):
        open_task(f"{tmp_path}/mine.py:Needs", trust_code=True)
    with pytest.raises(DataError, match="not a reference"):
        open_task("segmentation")
