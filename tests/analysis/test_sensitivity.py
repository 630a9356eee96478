"""The scan gives the numbers of the naive loop, keeps its budget and says what it did not reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor.analysis.sensitivity as module
from compressor.analysis import scan_sensitivity
from compressor.analysis.cuts import plan_cuts
from compressor.analysis.suffix import Steps
from compressor.asking import ScanSettings
from compressor.axes import find_units
from compressor.data import Batch, open_task
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import DataError, UsageError
from compressor.program import InputSpec, Program, capture, find_layers
from compressor.progress import Silent
from compressor.training import evaluate

N = 61


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        return self.fc((x + self.norm(self.conv2(x))).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    return capture(Net(), [InputSpec("x", (None, 1, 6, 6))])


@pytest.fixture(scope="module")
def data(program: Program) -> ArraySource:
    """Labels that the network itself gives, a tenth of them wrong: every cut changes the accuracy."""
    images = torch.randn((N, 1, 6, 6), generator=torch.Generator().manual_seed(1))
    labels = program.module(images).argmax(1)
    labels[::10] = (labels[::10] + 1) % 4
    part = Arrays(images, labels)
    return ArraySource("made", part, part, 4)


def naive(program: Program, data: ArraySource, pattern: str, shares: tuple[float, ...]) -> dict[str, Any]:
    cuts = plan_cuts(program, find_units(program), find_layers(program), pattern, shares)
    curves: dict[str, Any] = {}
    for layer, points in cuts.points.items():
        curve = []
        for share, i in points:
            copied = program.clone()
            copied.module.load_state_dict(cuts.cuts[i].apply(program.parameters), strict=False)
            curve.append((share, evaluate(copied.module, data, open_task(None), batch_size=16)["accuracy"]))
        curves[layer] = tuple(curve)
    return curves


@pytest.mark.parametrize("pattern", ["unstructured", "filter", "channel"])
@pytest.mark.parametrize("batch", [8, 256])
def test_the_numbers_are_those_of_the_naive_loop(
    program: Program, data: ArraySource, pattern: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_BATCH", batch)
    shares = (0.3, 0.6, 0.9)
    found = scan_sensitivity(program, data, ScanSettings(shares, pattern, N))
    assert found.curves == naive(program, data, pattern, shares)
    assert found.dense == evaluate(program.module, data, open_task(None))["accuracy"]
    assert (found.metric, found.n_samples, found.pattern, found.unmeasured) == ("accuracy", N, pattern, ())
    assert len({value for curve in found.curves.values() for _, value in curve}) > 2, "the data must tell cuts apart"


def test_a_start_too_late_gives_other_numbers(
    program: Program, data: ArraySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: the comparison above would see a rest that begins behind the cut."""
    right = Steps.first_reader
    monkeypatch.setattr(Steps, "first_reader", lambda self, names: right(self, names) + 1)
    found = scan_sensitivity(program, data, ScanSettings((0.6,), "unstructured", N))
    assert found.curves != naive(program, data, "unstructured", (0.6,))


def test_the_program_is_left_as_it_was(program: Program, data: ArraySource) -> None:
    before = {name: tensor.clone() for name, tensor in program.module.tensors().items()}
    scan_sensitivity(program, data, ScanSettings(n_samples=8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.module.tensors().items())


def test_samples_are_spread_over_the_split(program: Program, data: ArraySource) -> None:
    seen: list[Batch] = []

    class Watching:
        name, primary, higher_is_better = "watching", "accuracy", True

        def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
            raise AssertionError("the loss is not needed")

        def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
            seen.append(batch)
            return {"accuracy": (0.0, len(batch.inputs[0]))}

    found = scan_sensitivity(program, data, ScanSettings((0.5,), n_samples=20, scope=("fc",)), task=Watching())
    assert found.n_samples == 20
    assert torch.equal(seen[0].inputs[0], data.val.inputs[:60:3])


def test_a_task_that_is_judged_by_its_loss(program: Program, data: ArraySource) -> None:
    task = open_task(None)
    task.primary, task.higher_is_better = "loss", False  # type: ignore[misc]
    found = scan_sensitivity(program, data, ScanSettings((0.5,), n_samples=N, scope=("fc",)), task=task)
    assert found.dense == pytest.approx(evaluate(program.module, data, open_task(None))["loss"])
    assert not found.higher_is_better


class Clock:
    """A clock that moves by one second every time it is looked at."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += 1.0
        return self.now_s


def test_a_budget_that_ends_in_the_first_batch_names_what_is_missing(
    program: Program, data: ArraySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "time", Clock())
    found = scan_sensitivity(program, data, ScanSettings((0.3, 0.6), n_samples=N, budget_s=3.5))
    assert (list(found.curves), found.unmeasured) == (["conv1"], ("conv2", "fc"))
    assert found.n_samples == N


def test_a_budget_that_ends_later_keeps_whole_batches(
    program: Program, data: ArraySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_BATCH", 8)
    monkeypatch.setattr(module, "time", Clock())
    found = scan_sensitivity(program, data, ScanSettings((0.3, 0.6), n_samples=N, budget_s=15.5))
    assert found.unmeasured == ()
    assert found.n_samples == 16
    rest = scan_sensitivity(program, data, ScanSettings((0.3, 0.6), n_samples=N))
    assert rest.curves != found.curves


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"pattern": "head"}, "--pattern head: choose one of"),
        ({"shares": ()}, "--ratios"),
        ({"shares": (1.5,)}, "--ratios 1.5: removed shares"),
        ({"n_samples": 0}, "--samples 0"),
        ({"budget_s": 0.0}, "--budget 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ScanSettings(**given)


def test_an_unknown_layer_is_refused(program: Program, data: ArraySource) -> None:
    with pytest.raises(UsageError, match="--scope conv9: matches no layer"):
        scan_sensitivity(program, data, ScanSettings(scope=("conv9",)))


def test_an_empty_split_is_refused(program: Program, data: ArraySource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ArraySource, "n_val", 0)
    with pytest.raises(DataError, match="the validation split is empty"):
        scan_sensitivity(program, data, ScanSettings())


def test_a_network_that_fixes_its_batch_gets_that(data: ArraySource) -> None:
    torch.manual_seed(0)
    fixed = capture(Net(), [InputSpec("x", (1, 1, 6, 6))])
    found = scan_sensitivity(fixed, data, ScanSettings((0.5,), n_samples=5, scope=("fc",)))
    assert found.n_samples == 5


class Counting(Silent):
    """How many units of work were foreseen, and how many were done."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0

    def start(self, stage: str, total: int, unit: str) -> None:
        self.total = total

    def advance(self, n: int = 1, /, **values: float) -> None:
        self.done += n


@pytest.mark.parametrize("n", [16, 20])
def test_as_many_cuts_are_foreseen_as_are_measured(
    program: Program, data: ArraySource, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_BATCH", 8)
    told = Counting()
    scan_sensitivity(program, data, ScanSettings((0.5,), n_samples=n, scope=("fc",)), progress=told)
    assert isinstance(told.total, int) and told.total == told.done == -(-n // 8)
