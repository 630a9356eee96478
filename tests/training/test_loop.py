from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.asking import Recipe
from compressor.errors import ConfigError, TrainingError
from compressor.training import BaseHook, EpochRecord, StepReport, fit, load_state, save_state

Make = Callable[..., Any]


class Pull(BaseHook):
    """A stateful hook as ADMM is one: pulls the first weight to a target that moves every epoch."""

    def __init__(self, net: nn.Module, stop_at: int | None = None) -> None:
        self.weight = next(net.parameters())
        self.target = torch.zeros_like(self.weight)
        self.n_epochs, self.stop_at = 0, stop_at

    def on_gradients(self) -> None:
        assert self.weight.grad is not None
        self.weight.grad.add_(self.weight.detach() - self.target, alpha=0.1)

    def on_update(self) -> None:
        with torch.no_grad():
            self.weight[0] = 0

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        self.target += 0.1 * self.weight.detach() + 0.01 * torch.rand_like(self.target)
        self.n_epochs = epoch
        return {"distance": float((self.weight.detach() - self.target).norm())}

    def finished(self) -> bool:
        return self.n_epochs == self.stop_at

    def state_dict(self) -> dict[str, Any]:
        return {"target": self.target, "n_epochs": self.n_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.target, self.n_epochs = state["target"], state["n_epochs"]


def _without_time(history: tuple[EpochRecord, ...]) -> list[tuple[Any, ...]]:
    return [(r.epoch, r.lr, r.train_loss, r.metrics, r.extra) for r in history]


def test_training_learns(data: Any, task: Any, make_net: Make) -> None:
    result = fit(make_net(dropout=0.0), data, task, Recipe(epochs=15, batch_size=16, lr=0.02))
    first, last = result.history[0], result.history[-1]
    assert last.train_loss < 0.3 * first.train_loss
    assert last.metrics["accuracy"] > 0.6 and last.metrics["n"] == 40
    assert result.steps == 15 * 6 and result.stopped is None
    assert [record.epoch for record in result.history] == list(range(1, 16))


def test_module_ends_in_eval_mode_without_gradients(data: Any, task: Any, make_net: Make) -> None:
    net = make_net()
    fit(net, data, task, Recipe(epochs=1))
    assert not net.training and all(p.grad is None for p in net.parameters())


def test_seed_decides_everything_and_the_caller_keeps_its_random_numbers(
    data: Any, task: Any, make_net: Make, weights_of: Make, same_weights: Make
) -> None:
    nets = [make_net() for _ in range(3)]
    before = torch.get_rng_state()
    for net, seed in zip(nets, (4, 4, 5), strict=True):
        fit(net, data, task, Recipe(epochs=2), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (weights_of(net) for net in nets)
    assert same_weights(first, again) and not same_weights(first, other)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "l1": 1e-3},
        {"optimizer": "sgd", "lr": 0.05, "weight_decay": 1e-3, "warmup_epochs": 1},
        {"optimizer": "adamw", "keep": "best", "patience": 4, "cycle_epochs": 2},
        {"optimizer": "adam", "precision": "fp16", "clip_norm": 1.0},
    ],
    ids=["adam", "sgd", "adamw-best", "fp16"],
)
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_resumed_fit_is_bit_for_bit_the_uninterrupted_one(
    data: Any,
    task: Any,
    make_net: Make,
    weights_of: Make,
    same_weights: Make,
    tmp_path: Path,
    options: dict[str, Any],
    stop_after: int,
) -> None:
    recipe = Recipe.from_mapping({"epochs": 5, "batch_size": 16, "lr": 0.01, **options})
    whole = make_net()
    states: list[dict[str, Any]] = []
    hook = Pull(whole)
    expected = fit(whole, data, task, recipe, seed=3, hooks=[hook], on_state=states.append)
    save_state(tmp_path / "resume.pt", states[stop_after - 1])

    resumed = make_net(seed=99)
    resumed_hook = Pull(resumed)
    got = fit(resumed, data, task, recipe, seed=3, hooks=[resumed_hook], start=load_state(tmp_path / "resume.pt"))
    assert same_weights(weights_of(whole), weights_of(resumed))
    assert torch.equal(hook.target, resumed_hook.target)
    assert _without_time(got.history) == _without_time(expected.history)
    assert (got.best_epoch, got.stopped, got.steps) == (expected.best_epoch, expected.stopped, expected.steps)


def test_resume_test_can_fail(data: Any, task: Any, make_net: Make, weights_of: Make, same_weights: Make) -> None:
    """Without the optimizer's state the resumed weights differ, so the test above compares something."""
    recipe = Recipe(epochs=3, batch_size=16)
    whole, resumed = make_net(), make_net()
    states: list[dict[str, Any]] = []
    fit(whole, data, task, recipe, on_state=states.append)
    empty = torch.optim.Adam(nn.Linear(1, 1).parameters()).state_dict()["state"]
    broken = {**states[0], "optimizer": {**states[0]["optimizer"], "state": empty}}
    fit(resumed, data, task, recipe, start=broken)
    assert not same_weights(weights_of(whole), weights_of(resumed))


def test_state_may_be_used_twice_and_is_not_touched(
    data: Any, task: Any, make_net: Make, weights_of: Make, same_weights: Make
) -> None:
    recipe = Recipe(epochs=3, batch_size=16)
    states: list[dict[str, Any]] = []
    whole = make_net()
    fit(whole, data, task, recipe, hooks=[Pull(whole)], on_state=states.append)
    for _ in range(2):
        net = make_net(seed=8)
        fit(net, data, task, recipe, hooks=[Pull(net)], start=states[0])
        assert same_weights(weights_of(whole), weights_of(net))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "made with seed = 0, asked is 1"),
        ({"recipe": Recipe(epochs=2, lr=0.5)}, r"made with lr = 0\.001, asked is 0\.5"),
        ({"recipe": Recipe(epochs=2, patience=2)}, "made with patience = None, asked is 2"),
        ({"hooks": [BaseHook()]}, "made with number of hooks = 0, asked is 1"),
    ],
)
def test_state_of_another_run_is_refused(
    data: Any, task: Any, make_net: Make, change: dict[str, Any], said: str
) -> None:
    states: list[dict[str, Any]] = []
    fit(make_net(), data, task, Recipe(epochs=2), on_state=states.append)
    with pytest.raises(TrainingError, match=said):
        fit(make_net(), data, task, **{"recipe": Recipe(epochs=2), "start": states[0], **change})


def test_state_of_another_model_is_refused(data: Any, task: Any, make_net: Make) -> None:
    states: list[dict[str, Any]] = []
    fit(make_net(), data, task, Recipe(epochs=1), on_state=states.append)
    with pytest.raises(TrainingError, match="resume point: module has or lacks"):
        fit(nn.Linear(12, 4), data, task, Recipe(epochs=1), start=states[0])


def test_finished_state_gives_the_result_without_training(data: Any, task: Any, make_net: Make) -> None:
    states: list[dict[str, Any]] = []
    expected = fit(make_net(), data, task, Recipe(epochs=2), on_state=states.append)
    reports: list[StepReport] = []
    again = fit(make_net(), data, task, Recipe(epochs=2), start=states[-1], on_step=reports.append)
    assert reports == []
    assert _without_time(again.history) == _without_time(expected.history) and again.steps == expected.steps


def test_hook_values_join_the_record_and_hooks_can_end_the_fit(data: Any, task: Any, make_net: Make) -> None:
    net = make_net()
    result = fit(net, data, task, Recipe(epochs=9), hooks=[BaseHook(), Pull(net, stop_at=2)], evaluate_every=5)
    assert result.stopped == "Pull was finished after epoch 2"
    assert len(result.history) == 2
    assert result.history[0].extra["distance"] > 0 and result.history[0].metrics == {}
    assert "accuracy" in result.history[1].metrics  # the last epoch is evaluated even off the beat
    assert net[0].weight[0].abs().sum() == 0


class Tells(BaseHook):
    def __init__(self, **values: float) -> None:
        self.values = values

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        return self.values


def test_of_two_hooks_that_tell_the_same_the_first_counts(data: Any, task: Any, make_net: Make) -> None:
    hooks = [Tells(sparsity=0.9), Tells(sparsity=0.0, rho=1.0)]
    result = fit(make_net(), data, task, Recipe(epochs=1), hooks=hooks)
    assert result.history[0].extra == {"sparsity": 0.9, "rho": 1.0}


class ScriptedMetric:
    """A task whose metric is read from a list, one value for each evaluation."""

    name, primary = "scripted", "score"

    def __init__(self, task: Any, values: list[float], higher_is_better: bool = True) -> None:
        self.loss, self.values, self.higher_is_better = task.loss, iter(values), higher_is_better

    def metrics(self, outputs: Any, batch: Any) -> dict[str, tuple[float, int]]:
        return {"score": (next(self.values), 1)}


def test_best_weights_are_kept(data: Any, task: Any, make_net: Make, weights_of: Make, same_weights: Make) -> None:
    net = make_net()
    states: list[dict[str, Tensor]] = []
    scripted = ScriptedMetric(task, [0.1, 0.7, 0.3, 0.7])
    recipe = Recipe(epochs=4, keep="best")
    result = fit(net, data, scripted, recipe, on_state=lambda state: states.append(state["module"]))
    assert result.best_epoch == 2
    assert same_weights(weights_of(net), states[1]) and not same_weights(weights_of(net), states[3])


def test_best_weights_outlive_an_interruption(
    data: Any, task: Any, make_net: Make, weights_of: Make, same_weights: Make
) -> None:
    states: list[dict[str, Any]] = []
    recipe = Recipe(epochs=3, keep="best")
    fit(make_net(), data, ScriptedMetric(task, [0.9, 0.1, 0.2]), recipe, on_state=states.append)
    resumed = make_net(seed=5)
    result = fit(resumed, data, ScriptedMetric(task, [0.2]), recipe, start=states[1])
    assert result.best_epoch == 1
    assert same_weights(weights_of(resumed), states[0]["module"])


def test_loss_scale_outlives_an_interruption(data: Any, task: Any, make_net: Make) -> None:
    class Steep:
        name, primary, higher_is_better, metrics = "steep", "accuracy", True, task.metrics

        def loss(self, outputs: Any, batch: Any, *, smoothing: float = 0.0) -> Tensor:
            return 1e4 * task.loss(outputs, batch)

    recipe = Recipe(epochs=2, batch_size=16, precision="fp16")
    states: list[dict[str, Any]] = []
    fit(make_net(), data, Steep(), recipe, on_state=states.append)
    resumed: list[dict[str, Any]] = []
    fit(make_net(), data, Steep(), recipe, start=states[0], on_state=resumed.append)
    assert resumed[0]["scaler"] == states[1]["scaler"]
    assert states[1]["scaler"]["scale"] < 2**16  # it had to back off, so there is something to remember


def test_last_weights_are_kept_by_default(
    data: Any, task: Any, make_net: Make, weights_of: Make, same_weights: Make
) -> None:
    net = make_net()
    states: list[dict[str, Tensor]] = []
    scripted = ScriptedMetric(task, [0.9, 0.1])
    result = fit(net, data, scripted, Recipe(epochs=2), on_state=lambda state: states.append(state["module"]))
    assert result.best_epoch == 1
    assert same_weights(weights_of(net), states[1])


@pytest.mark.parametrize(("values", "higher"), [([0.5, 0.6, 0.6, 0.1, 0.9], True), ([0.5, 0.4, 0.4, 0.9, 0.1], False)])
def test_patience_ends_the_fit(data: Any, task: Any, make_net: Make, values: list[float], higher: bool) -> None:
    result = fit(make_net(), data, ScriptedMetric(task, values, higher), Recipe(epochs=5, patience=2))
    assert len(result.history) == 4 and result.best_epoch == 2
    assert result.stopped == "no better score for 2 epochs"


def test_without_patience_it_goes_on(data: Any, task: Any, make_net: Make) -> None:
    result = fit(make_net(), data, ScriptedMetric(task, [0.5, 0.1, 0.1, 0.1]), Recipe(epochs=4))
    assert len(result.history) == 4 and result.stopped is None


def test_task_without_its_primary_metric_is_an_error(data: Any, task: Any, make_net: Make) -> None:
    scripted = ScriptedMetric(task, [0.5])
    scripted.primary = "fame"
    with pytest.raises(TrainingError, match="task scripted: reports no fame"):
        fit(make_net(), data, scripted, Recipe(epochs=1, keep="best"))


def test_callbacks_get_every_step_and_epoch(data: Any, task: Any, make_net: Make) -> None:
    reports: list[StepReport] = []
    records: list[EpochRecord] = []
    recipe = Recipe(epochs=2, batch_size=40, schedule="constant", lr=0.01)
    result = fit(make_net(), data, task, recipe, on_step=reports.append, on_epoch=records.append)
    assert [(r.epoch, r.step, r.n_steps, r.lr) for r in reports] == [
        (epoch, step, 3, 0.01) for epoch in (1, 2) for step in (1, 2, 3)
    ]
    assert tuple(records) == result.history
    mean = sum(r.loss * n for r, n in zip(reports, (40, 40, 16), strict=False)) / 96
    assert records[0].train_loss == pytest.approx(mean)


def test_evaluation_only_when_due(data: Any, task: Any, make_net: Make) -> None:
    result = fit(make_net(), data, task, Recipe(epochs=5), evaluate_every=2)
    assert [bool(record.metrics) for record in result.history] == [False, True, False, True, True]
    with pytest.raises(ConfigError, match="evaluate_every = 0: must be"):
        fit(make_net(), data, task, Recipe(epochs=1), evaluate_every=0)


def test_data_without_validation(make_data: Make, task: Any, make_net: Make) -> None:
    result = fit(make_net(), make_data(n_val=0), task, Recipe(epochs=1))
    assert result.history[0].metrics == {} and result.best_epoch is None
    with pytest.raises(TrainingError, match="memory: no validation data; keep = best and patience need some"):
        fit(make_net(), make_data(n_val=0), task, Recipe(epochs=1, patience=1))


def test_data_without_training_samples_is_an_error(make_data: Make, task: Any, make_net: Make) -> None:
    with pytest.raises(TrainingError, match="memory: no training batches"):
        fit(make_net(), make_data(n_train=0), task, Recipe(epochs=1))


def test_diverging_loss_names_the_place(data: Any, bad_loss_after: Make, make_net: Make) -> None:
    recipe = Recipe(epochs=2, batch_size=16, schedule="constant", lr=0.02)
    with pytest.raises(TrainingError, match=r"epoch 2, step 3: the loss is nan at learning rate 0\.02"):
        fit(make_net(), data, bad_loss_after(6 + 1 + 2), recipe)  # 6 steps, 1 evaluation, 2 steps


def test_train_and_eval_are_called_once_an_epoch(data: Any, task: Any, make_net: Make) -> None:
    """Switching modes recompiles a graph module."""
    calls: list[bool] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def train(self, mode: bool = True) -> Counting:
            calls.append(mode)
            return super().train(mode)

        def forward(self, x_NI: Tensor) -> Tensor:
            return self.net(x_NI)

    fit(Counting(), data, task, Recipe(epochs=2, batch_size=8))
    assert calls == [True, False, True, False, False]


def test_augmentation_is_asked_for(data: Any, task: Any, make_net: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, bool]] = []
    batches = data.batches

    def spy(split: Any, size: int, *, epoch: int = 0, augment: bool = False, **rest: Any) -> Any:
        asked.append((split, epoch, augment))
        return batches(split, size, epoch=epoch, augment=augment, **rest)

    monkeypatch.setattr(data, "batches", spy)
    fit(make_net(), data, task, Recipe(epochs=2, augment=True))
    assert asked == [("train", 0, True), ("val", 0, False), ("train", 1, True), ("val", 0, False)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_cuda_trains_in_every_precision(data: Any, task: Any, make_net: Make, precision: Any) -> None:
    net = make_net(dropout=0.0)
    recipe = Recipe(epochs=15, batch_size=16, lr=0.02, precision=precision)
    states: list[dict[str, Any]] = []
    result = fit(net, data, task, recipe, device="cuda", hooks=[Pull(net.to("cuda"))], on_state=states.append)
    assert next(net.parameters()).device.type == "cuda"
    assert states[0]["module"]["0.weight"].device.type == "cpu"
    assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss


def test_an_epoch_may_be_fewer_steps_than_the_samples_make(data: Any, task: Any, make_net: Make) -> None:
    """Each goes on with other samples, and the rate runs over the shorter epochs."""
    steps: list[StepReport] = []
    recipe = Recipe(epochs=3, epoch_steps=2, batch_size=16, lr=0.1, schedule="linear")
    result = fit(make_net(), data, task, recipe, on_step=steps.append)
    assert result.steps == 6 and [step.n_steps for step in steps] == [2] * 6
    assert [step.lr for step in steps] == pytest.approx([0.1 * (1 - i / 6) for i in range(6)])
    whole = fit(make_net(), data, task, Recipe(epochs=1, epoch_steps=1000, batch_size=16))
    assert whole.steps == 6, "no more than there are"


class Late:
    """A loss that is known when somebody waits for it and not before, as on a device that is busy."""

    def __init__(self, loss: Tensor) -> None:
        self._loss = loss.detach()

    def arrived(self) -> bool:
        return False

    def value(self) -> float:
        return float(self._loss)


@pytest.fixture
def busy_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled step that does not wait for its loss, without a compiler and a GPU."""
    monkeypatch.setattr("compressor.training.step.LossReading", Late)
    monkeypatch.setattr("compressor.training.step._waits", lambda recipe, device: False)


def test_late_losses_give_the_same_epochs(
    data: Any, task: Any, make_net: Make, weights_of: Make, same_weights: Make, request: pytest.FixtureRequest
) -> None:
    nets, recipe = [make_net(), make_net()], Recipe(epochs=2, batch_size=16, lr=0.02)
    expected = fit(nets[0], data, task, recipe)
    request.getfixturevalue("busy_device")
    steps: list[StepReport] = []
    got = fit(nets[1], data, task, recipe, on_step=steps.append)
    assert same_weights(weights_of(nets[0]), weights_of(nets[1]))
    assert _without_time(got.history) == _without_time(expected.history)
    assert math.isnan(steps[0].loss), "not known yet"


@pytest.mark.usefixtures("busy_device")
def test_a_late_bad_loss_names_its_step_and_keeps_the_weights_before_it(
    data: Any, task: Any, bad_loss_after: Make, make_net: Make
) -> None:
    recipe = Recipe(epochs=1, batch_size=16, optimizer="sgd", schedule="constant", lr=0.02)
    kept, net = make_net(dropout=0.0), make_net(dropout=0.0)
    fit(kept, data, task, replace(recipe, epoch_steps=2))
    with pytest.raises(TrainingError, match=r"epoch 1, step 3: the loss is nan at learning rate 0\.02"):
        fit(net, data, bad_loss_after(2), recipe)
    for mine, theirs in zip(net.parameters(), kept.parameters(), strict=True):
        assert torch.equal(mine, theirs)
