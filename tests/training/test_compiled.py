"""Steps through torch.compile: the same training, and a compiler that is not there is named."""

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor import capture, prune, retrain
from compressor.asking import PruneSettings, Recipe
from compressor.data import Classification
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import TrainingError
from compressor.program import InputSpec
from compressor.training import fit

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's own compiler, about itself


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def data() -> ArraySource:
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
    part = Arrays(x, x[:, :3].argmax(1))
    return ArraySource("points", part, part, 3)


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_step_is_one_graph_with_its_teacher_and_its_loss(precision: Any) -> None:
    """What breaks a graph is handed over piece by piece again."""
    program, teacher = (capture(net(), InputSpec("x", (None, 6))) for _ in range(2))
    recipe = Recipe(epochs=1, batch_size=16, optimizer="sgd", lr=0.1, compile=True, distill=0.5, precision=precision)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    _, report = retrain(program, recipe, data=data(), teacher=teacher)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert len(report.history) == 1


@pytest.mark.parametrize("own", [True, False])
def test_whoever_trains_many_times_is_compiled_every_time(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As rounds and sweeps do. The twin shares its code, and the compiler gives up on it after some times."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode: compile(function, backend="eager"))
    if not own:
        monkeypatch.setattr("compressor.training.compiled._of_its_own", lambda function: function)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for _ in range(10):
        fit(net(), data(), Classification(), Recipe(epochs=1, batch_size=16, compile=True))
    assert (torch._dynamo.utils.counters["stats"]["unique_graphs"] == 10) == own


@needs_compiler
def test_compiled_training_cuts_the_same_and_ends_at_the_same_weights() -> None:
    program = capture(net(), InputSpec("x", (None, 6)))
    results = []
    for compile in (False, True):
        recipe = Recipe(epochs=2, batch_size=16, optimizer="sgd", lr=0.1, compile=compile)
        settings = PruneSettings(ratio=1.5, method="magnitude", pattern="channel", round_to=1, retrain_recipe=recipe)
        results.append(prune(program, settings, data=data())[0])
    plain, fast = results
    assert plain.masks.keys() == fast.masks.keys() and len(plain.masks) > 0
    for name, tensor in plain.module.tensors().items():
        torch.testing.assert_close(fast.module.tensors()[name], tensor, rtol=1e-3, atol=1e-4)
    moved = plain.parameters["0.weight"] - program.parameters["0.weight"]
    assert float(moved.abs().max()) > 1e-3


def test_a_compiler_that_fails_is_an_error_of_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def refuses(function: object, device: torch.device) -> object:
        def call(batch: object) -> Tensor:
            raise TorchDynamoException("no C++ compiler found\nmore lines")

        return call

    monkeypatch.setattr("compressor.training.step.compiled", refuses)
    with pytest.raises(TrainingError, match=r"--compile: .*no C\+\+ compiler found\nit needs") as raised:
        fit(net(), data(), Classification(), Recipe(epochs=1, compile=True))
    assert "more lines" not in str(raised.value)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_recorded_steps_train_the_same() -> None:
    results = []
    for compile in (False, True):
        recipe = Recipe(epochs=3, batch_size=16, optimizer="sgd", lr=0.05, distill=0.5, compile=compile)
        trained = net()
        told = fit(trained, data(), Classification(), recipe, teacher=net().eval(), device="cuda")
        results.append((trained.cpu().state_dict(), [epoch.train_loss for epoch in told.history]))
    (plain, losses), (fast, fast_losses) = results
    assert fast_losses == pytest.approx(losses, rel=1e-2) and losses[-1] < losses[0]
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_on_a_gpu_a_late_bad_loss_keeps_the_weights(optimizer: Any) -> None:
    points = data()
    points.train.inputs[7] = float("nan")
    trained = net()
    with pytest.raises(TrainingError, match=r"epoch 1, step \d: the loss is nan"):
        fit(trained, points, Classification(), Recipe(epochs=1, batch_size=4, optimizer=optimizer, compile=True),
            device="cuda")  # fmt: skip
    assert all(bool(parameter.isfinite().all()) for parameter in trained.parameters())
