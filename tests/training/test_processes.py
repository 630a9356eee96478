from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from compressor.errors import ProviderError
from compressor.training.processes import Processes, open_processes, share_masks, share_state

ROOT = Path(__file__).resolve().parents[2]

# Without dropout, and with every global batch cut into equal shares, two processes compute what one does.
SCRIPT = """
import json, os, sys
import torch
from torch import nn
from compressor.data.opening import open_data
from compressor.data.task import Classification
from compressor.asking import Recipe
from compressor.training import evaluate, fit, gradient_moments, share_state

norm = sys.argv[3] == "norm"
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(12, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU(), nn.Linear(16, 4))
data, told = open_data(sys.argv[1]), []
recipe = Recipe(epochs=3, batch_size=16, optimizer="sgd", lr=0.05)
result = fit(net, data, Classification(), recipe, seed=1, on_step=told.append, on_state=told.append)
metrics = evaluate(net, data, Classification(), batch_size=7)
moments = {}
if sys.argv[3] == "apart":
    net[0].weight.data += float(os.environ.get("RANK", "0"))
    found = gradient_moments(net, data, Classification(), n_batches=2)
    moments = {name: [part.tolist() for part in pair] for name, pair in found.items()}
    share_state(net, "cpu")
state = {name: value.tolist() for name, value in net.state_dict().items()}
answer = {
    "state": state, "metrics": metrics, "moments": moments, "losses": [r.train_loss for r in result.history],
    "steps": result.steps, "n_told": len(told), "accelerate": "accelerate" in sys.modules,
}
open(sys.argv[2], "w").write(json.dumps(answer))
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
sys.stderr.flush()
os._exit(0)  # gloo sometimes aborts in its threads' destructors when the interpreter ends; the answer is written
"""


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "random.npz"
    rng = np.random.default_rng(0)
    x_train, x_test = (rng.normal(size=(n, 12)).astype(np.float32) for n in (64, 31))
    y_train, y_test = (x[:, :4].argmax(1) for x in (x_train, x_test))
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def _train(npz: Path, folder: Path, world: int, kind: str) -> list[dict[str, Any]]:
    return run_together(SCRIPT, npz, folder, world, kind)


def run_together(
    script: str, npz: Path, folder: Path, world: int, kind: str, more: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """What each of `world` processes that train together reports."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running, answers = [], []
    for rank in range(world):
        answers.append(folder / f"{kind}-{world}-{rank}.json")
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **place} if world > 1 else {}
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **{name: str(value) for name, value in together.items()},
            **(more or {}),
        }
        command = [sys.executable, "-c", script, str(npz), str(answers[-1]), kind]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=1500)
        assert process.returncode == 0, errors
    return [json.loads(answer.read_text()) for answer in answers]


def test_two_processes_train_as_one_and_only_the_first_tells(npz: Path, tmp_path: Path) -> None:
    (alone,) = _train(npz, tmp_path, 1, "plain")
    first, second = _train(npz, tmp_path, 2, "plain")
    assert first["state"] == second["state"]
    for name, value in alone["state"].items():
        assert np.allclose(first["state"][name], value, atol=1e-5), name
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert first["metrics"] == second["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    assert first["metrics"]["n"] == 31
    assert alone["steps"] == first["steps"] == 12
    assert (alone["n_told"], first["n_told"], second["n_told"]) == (15, 15, 0)
    assert (alone["accelerate"], first["accelerate"]) == (False, True)


def test_running_statistics_are_the_same_on_all_processes(npz: Path, tmp_path: Path) -> None:
    first, second = _train(npz, tmp_path, 2, "norm")
    assert first["state"] == second["state"]
    assert first["metrics"] == second["metrics"]
    assert any(first["state"]["1.running_mean"])


def test_what_drifted_apart_comes_together_as_the_first_has_it(npz: Path, tmp_path: Path) -> None:
    first, second = _train(npz, tmp_path, 2, "apart")
    assert first["moments"] == second["moments"] != {} and first["state"] == second["state"]


def test_one_process_is_alone() -> None:
    processes = open_processes("cpu")
    assert processes == Processes(torch.device("cpu"), 0, 1, None)
    assert processes.is_main and processes.shard == (0, 1)
    assert processes.gather("x") == ["x"]
    module = torch.nn.BatchNorm1d(2)
    assert processes.wrap(module) is module
    processes.share_buffers(module)
    assert module.running_mean is not None and module.running_mean.tolist() == [0, 0]


class Second:
    """accelerate's object in the second of two processes; the first one's tensors are all 7."""

    def __init__(self, **asked: Any) -> None:
        self.asked, self.device, self.process_index, self.num_processes = asked, torch.device("cpu"), 1, 2

    def prepare_model(self, module: torch.nn.Module) -> torch.nn.Module:
        return torch.nn.Sequential(module)


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """The place that is found in the second of two processes, with accelerate's functions answering for the first."""
    answers = SimpleNamespace(gather_object=lambda found: ["first", *found], broadcast=lambda x: torch.full_like(x, 7))
    monkeypatch.setitem(sys.modules, "accelerate", SimpleNamespace(Accelerator=Second))
    monkeypatch.setitem(sys.modules, "accelerate.utils", answers)
    monkeypatch.setenv("WORLD_SIZE", "2")
    return open_processes("cpu")


def test_the_second_of_two_gathers_wraps_and_takes_what_the_first_has(second: Processes) -> None:
    assert (second.rank, second.world, second.is_main, second.shard) == (1, 2, False, (1, 2))
    accelerator: Any = second.accelerator
    assert accelerator.asked == {"cpu": True, "mixed_precision": "no"}
    assert second.gather("mine") == ["first", "mine"]
    module = torch.nn.BatchNorm1d(2)
    wrapped = second.wrap(module)
    assert wrapped is not module and next(wrapped.children()) is module
    second.share_buffers(module)
    assert module.running_mean is not None and module.running_mean.tolist() == [7, 7]
    assert module.weight.tolist() == [1, 1], "parameters are kept alike by their gradients"
    share_state(module, "cpu")
    assert module.weight.tolist() == module.bias.tolist() == [7, 7]
    mine = torch.tensor([False, False])
    (masks,) = share_masks({"one": mine}, "cpu").values()
    assert masks.dtype == torch.bool and masks.all() and not mine.any()


def test_alone_nothing_is_shared_and_accelerate_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setenv("WORLD_SIZE", "1")
    module = torch.nn.BatchNorm1d(2)
    share_state(module, "cpu")
    assert module.weight.tolist() == [1, 1]
    assert share_masks({"one": torch.tensor([False])}, "cpu")["one"].tolist() == [False]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ProviderError, match="training in several processes needs accelerate: pip install accelerate"):
        open_processes("cpu")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two processes, whose accelerate calls the CPU `cpu:0` and has the second GPU."""

    def accelerator(cpu: bool, mixed_precision: str) -> SimpleNamespace:
        device = torch.device("cpu:0") if cpu else torch.device("cuda:1")
        return SimpleNamespace(device=device, process_index=1, num_processes=2)

    monkeypatch.setitem(sys.modules, "accelerate", SimpleNamespace(Accelerator=accelerator))  # type: ignore[arg-type]
    monkeypatch.setattr("compressor.training.processes.resolve_device", torch.device)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)


@pytest.mark.parametrize(("asked", "taken"), [("cpu", "cpu"), ("cuda", "cuda:1")])
def test_the_cpu_keeps_its_name_and_a_gpu_is_the_one_that_accelerate_gives(
    launched: None, asked: str, taken: str
) -> None:
    found = open_processes(asked)
    assert found.device == torch.device(taken) and (found.rank, found.world, found.spreads) == (1, 2, False)


@pytest.mark.parametrize("version", [None, "1", "2"])
def test_weights_are_spread_by_the_second_version_only(
    launched: None, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.delenv("FSDP_VERSION", raising=False)
    if version is not None:
        monkeypatch.setenv("FSDP_VERSION", version)
    if version == "2":
        assert open_processes("cpu").spreads
    else:
        with pytest.raises(ProviderError, match="FSDP2 only"):
            open_processes("cpu")
