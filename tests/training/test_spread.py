"""Weights spread over two processes (FSDP2 over gloo): the masks, weights and checkpoints of one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.training.processes import Processes
from compressor.training.spread import Spread, clip_gradients, gathered, held, is_spread, own_part, spread, total, whole
from tests.training.test_processes import npz, run_together

__all__ = ["npz"]  # a fixture

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}

# A number alone (`scale`), widths that two processes do not share evenly, masks from before, L1 and a clipped gradient.
SCRIPT = """
import json, os, shutil, sys
from pathlib import Path
import torch
from torch import nn
import compressor
from compressor.asking import Admm, PruneSettings, Recipe
from compressor.errors import CompressError
from compressor.pruning.run import ResumeFile
from compressor.training import load_state

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(12, 17), nn.Linear(17, 9), nn.Linear(9, 4)
        self.norm, self.scale = nn.LayerNorm(17), nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        x = self.norm(torch.relu(self.one(x)))
        return self.three(torch.relu(self.two(x)) * self.scale)

kind, out = sys.argv[3], sys.argv[2]
torch.manual_seed(0)
data = compressor.open_data(sys.argv[1])
program = compressor.load(Net(), torch.zeros(2, 12))
how = dict(batch_size=16, lr=0.01, clip_norm=0.5, l1=1e-4, optimizer=os.environ.get("OPTIMIZER", "adam"))
file = Path(out + ".resume") if kind != "plain" else None
settings = PruneSettings(
    ratio=1.5, method="group-lasso" if kind == "lasso" else "admm", round_to=1, seed=3, admm=Admm(updates=6),
    prune_recipe=Recipe(epochs=3, **how), retrain_recipe=Recipe(epochs=2, **how, keep="best"),
)
answer, middle = {}, out.replace("-1.json", "-0.json") + ".middle"
write = ResumeFile.write

def kept(self, phase, fit_state, *rest):
    write(self, phase, fit_state, *rest)
    if file and phase == 0 and fit_state and len(fit_state["history"]) == 2 and self.path == file:
        shutil.copy(file, middle)

ResumeFile.write = kept
try:
    pruned, report = compressor.prune(program, settings, data=data, resume_file=file)
    if file is not None:
        again = compressor.prune(program, settings, data=data, resume_file=Path(middle), resume=True)[0]
        answer["again"] = {name: value.tolist() for name, value in again.module.state_dict().items()}
    answer |= {
        "masks": {name: mask.tolist() for name, mask in pruned.masks.items()},
        "state": {name: value.tolist() for name, value in pruned.module.state_dict().items()},
        "kinds": sorted({type(p).__name__ for p in pruned.module.parameters()}),
        "stages": [[row.name, row.ratio, row.metrics["loss"], row.extra.get("residual")] for row in report.stages],
        "history": [[h["train_loss"], h.get("penalty"), h.get("sparsity")] for r in report.stages for h in r.history],
    }
    if os.environ.get("RANK", "0") == "0":
        compressor.save(pruned, out + ".pt", force=True)
except CompressError as error:
    answer = {"refused": str(error)}
if kind == "resume" and os.environ.get("RANK", "0") == "0":  # the first one writes
    found = load_state(file)["fit"]
    def told(value):
        if isinstance(value, torch.Tensor):
            return value.tolist()
        if isinstance(value, dict):
            return {str(k): told(v) for k, v in value.items()}
        return [told(v) for v in value] if isinstance(value, (list, tuple)) else value
    answer["resume"] = {name: told(found[name]) for name in ("module", "optimizer")}
open(out, "w").write(json.dumps(answer))
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
sys.stderr.flush()
os._exit(0)
"""


def alike(one: Any, other: Any, where: str = "") -> None:
    """Numbers to rounding, everything else the same."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            alike(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            alike(a, b, f"{where}.{i}")
    elif isinstance(one, float):
        assert np.isclose(one, other, rtol=1e-4, atol=1e-6), (where, one, other)
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def alone(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_together(SCRIPT, npz, tmp_path_factory.mktemp("alone"), 1, "resume")[0]


def test_two_processes_with_spread_weights_give_the_masks_of_one(
    npz: Path, tmp_path: Path, alone: dict[str, Any]
) -> None:
    pytest.importorskip("accelerate", reason="several processes need accelerate, pip install accelerate")
    first, second = run_together(SCRIPT, npz, tmp_path, 2, "resume", FSDP)
    assert first["masks"] == second["masks"] == alone["masks"] and any(
        not all(map(all, np.atleast_2d(mask))) for mask in alone["masks"].values()
    )
    assert first["state"] == second["state"] and first["kinds"] == ["Parameter"]
    for part in ("state", "stages", "history", "resume"):
        alike(first[part], alone[part], part)
    assert alone["again"] == alone["state"], "twin: one process goes on bit for bit"
    assert first["again"] == second["again"]
    alike(first["again"], first["state"], "again")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_checkpoint_of_spread_weights_is_one_of_one_process(npz: Path, tmp_path: Path, optimizer: str) -> None:
    pytest.importorskip("accelerate", reason="several processes need accelerate, pip install accelerate")
    from compressor.formats import load

    (first, _) = run_together(SCRIPT, npz, tmp_path, 2, "plain", {**FSDP, "OPTIMIZER": optimizer})
    saved = load(next(tmp_path.glob("*-0.json.pt")))
    for name, value in saved.module.state_dict().items():
        assert value.tolist() == first["state"][name], name
    assert {name: mask.tolist() for name, mask in saved.masks.items()} == first["masks"]


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("lasso", FSDP, "--method group-lasso does not go with weights that are spread over processes"),
        ("plain", {**FSDP, "FSDP_VERSION": "1"}, "weights are spread by FSDP2 only"),
    ],
)
def test_what_spread_weights_do_not_go_with(
    npz: Path, tmp_path: Path, kind: str, more: dict[str, str], message: str
) -> None:
    pytest.importorskip("accelerate", reason="several processes need accelerate, pip install accelerate")
    for answer in run_together(SCRIPT, npz, tmp_path, 2, kind, more):
        assert message in answer["refused"]


def test_one_process_spreads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    net = nn.Linear(3, 2)
    weight = net.weight
    with spread(net, "cpu") as parts, whole(net):
        assert parts is None and net.weight is weight
    assert not is_spread(weight) and held(weight) is weight and gathered(weight) is weight
    assert own_part(weight, net.bias) is weight and total(2.5, [weight]) == 2.5


def test_plain_gradients_are_clipped_as_torch_does() -> None:
    one, two = (nn.Linear(3, 2) for _ in range(2))
    two.load_state_dict(one.state_dict())
    for net in (one, two):
        net(torch.ones(4, 3)).square().sum().backward()
    clip_gradients(list(one.parameters()), 0.1)
    nn.utils.clip_grad_norm_(two.parameters(), 0.1)
    assert one.weight.grad is not None and two.weight.grad is not None and torch.equal(one.weight.grad, two.weight.grad)


def test_a_network_is_called_through_its_spread_form_only_where_it_is_spread() -> None:
    assert not isinstance(Processes(torch.device("cpu")).wrap(nn.Linear(1, 1)), Spread)
    assert os.environ.get("ACCELERATE_USE_FSDP") is None, "the tests run as one process"
