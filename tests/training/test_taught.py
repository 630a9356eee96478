"""Without labels a network's own answers are learned from, and agreement with them is measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor import capture, open_data, prune, retrain
from compressor.asking import PruneSettings, Recipe
from compressor.data import Batch, Classification, has_labels
from compressor.errors import DataError, UsageError
from compressor.program import InputSpec
from compressor.training import Agreement, with_agreement, with_targets


def npz(folder: Path, **arrays: Any) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 1, 8, 8)).astype(np.float32)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))


@pytest.fixture
def unlabelled(tmp_path: Path) -> str:
    return npz(tmp_path, x_train=images(40), x_test=images(20, 1))


@pytest.mark.parametrize("given", [("x_train",), ("x_train", "x_test")])
def test_an_npz_without_labels(tmp_path: Path, given: tuple[str, ...]) -> None:
    data = open_data(npz(tmp_path, **{name: images(25) for name in given}))
    assert not has_labels(data) and data.n_classes is None
    assert (data.n_train, data.n_val) == ((22, 3) if len(given) == 1 else (25, 25))
    assert all(batch.target is None for batch in data.batches("train", 10))


def test_labels_of_one_part_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no array y_test"):
        open_data(npz(tmp_path, x_train=images(9), y_train=np.zeros(9, int), x_test=images(9)))


def test_held_out_samples_are_not_trained_on(tmp_path: Path) -> None:
    x = images(25)
    data = open_data(npz(tmp_path, x_train=x))
    parts = [torch.cat([b.inputs[0] for b in data.batches(split, 11)]) for split in ("train", "val")]
    rows = {tuple(row) for part in parts for row in part.flatten(1).tolist()}
    assert len(rows) == 25 and sum(map(len, parts)) == 25


def test_targets_are_the_answers_and_agreement_counts_equal_classes(unlabelled: str) -> None:
    model = net().eval()
    data, task = with_targets(open_data(unlabelled), None, model)
    assert isinstance(task, Agreement)
    for batch in data.batches("val", 8):
        assert torch.equal(batch.target, model(batch.inputs[0]))
        assert task.metrics(batch.target, batch) == {"agreement": (float(len(batch.inputs[0])), len(batch.inputs[0]))}
        assert float(task.loss(batch.target, batch)) == pytest.approx(0, abs=1e-6)
        other = batch.target.roll(1, dims=1)
        assert float(task.loss(other, batch)) > 0.01 and task.metrics(other, batch)["agreement"][0] == 0


def test_outputs_that_are_no_class_scores_are_compared_as_numbers() -> None:
    task, x = Agreement(), torch.randn(3, 5)
    outputs = {"boxes": torch.randn(3, 4), "kept": torch.ones(3, dtype=torch.int64)}
    batch = Batch((x,), {"boxes": outputs["boxes"] * 2, "kept": outputs["kept"]})
    assert float(task.loss(outputs, batch)) == pytest.approx(0.25)
    assert task.metrics(outputs, batch)["agreement"][0] == pytest.approx(3.0)
    with pytest.raises(DataError, match="answers take the place of labels"):
        task.loss({"boxes": torch.randn(3, 5)}, Batch((x,), {"boxes": torch.randn(3, 4)}))


def test_a_task_of_the_users_gets_the_batch_without_labels(unlabelled: str) -> None:
    class Own:
        name, primary, higher_is_better = "own", "norm", False

        def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
            return outputs.square().mean()

        def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
            return {"norm": (float(outputs.norm()), 1)}

    data, task = with_targets(open_data(unlabelled), Own(), None)
    assert isinstance(task, Own) and not has_labels(data)


def test_prune_without_labels_learns_from_the_dense_network(unlabelled: str) -> None:
    dense = capture(net(), [InputSpec("x", (None, 1, 8, 8))])
    recipe = Recipe(epochs=8, lr=0.01, batch_size=16)
    settings = PruneSettings(ratio=1.5, method="magnitude", pattern="channel", round_to=1, retrain_recipe=recipe)
    _, report = prune(dense, settings, data=open_data(unlabelled))
    assert report.stages[0].metrics is not None and report.stages[0].metrics["agreement"] == 1.0
    history = report.stages[-1].history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_retrain_without_labels_needs_the_dense_network(unlabelled: str) -> None:
    dense = capture(net(), [InputSpec("x", (None, 1, 8, 8))])
    recipe = Recipe(epochs=1, batch_size=16)
    with pytest.raises(UsageError, match="has no labels; give the dense model as --teacher"):
        retrain(dense, recipe, data=open_data(unlabelled))
    _, report = retrain(dense, recipe, data=open_data(unlabelled), teacher=dense)
    assert "agreement" in (report.stages[-1].metrics or {})


def test_agreement_beside_labels(tmp_path: Path) -> None:
    labels = np.arange(20) % 4
    data = open_data(npz(tmp_path, x_train=images(20), y_train=labels, x_test=images(20), y_test=labels))
    model = net().eval()
    taught, task = with_agreement(data, Classification(), model)
    batch = next(iter(taught.batches("val", 20)))
    found = task.metrics(model(batch.inputs[0]), batch)
    assert found["agreement"] == (20.0, 20) and found["accuracy"][0] < 20
    assert float(task.loss(batch.target[1], batch)) == pytest.approx(
        float(nn.functional.cross_entropy(batch.target[1], torch.from_numpy(labels)))
    )


def test_beside_labels_training_does_not_ask_the_dense_network(tmp_path: Path) -> None:
    labels = np.arange(20) % 4
    data = open_data(npz(tmp_path, x_train=images(20), y_train=labels, x_test=images(20), y_test=labels))
    model, asked = net().eval(), []
    model.register_forward_hook(lambda *_: asked.append(1))
    taught, task = with_agreement(data, Classification(), model)
    for batch in taught.batches("train", 5):
        assert set(task.metrics(torch.zeros(5, 4), batch)) == {"accuracy"} and not asked
    assert len(list(taught.batches("val", 5))) == len(asked) == 4
