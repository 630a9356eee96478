"""`retrain --adopt`: prune here, train anywhere, come back."""

from __future__ import annotations

from pathlib import Path

import torch

import compressor
from compressor import Pruner
from tests.cli.conftest import Run

PRUNE = ("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--no-retrain", "-o", "m.pruned.pt", "-q")


def test_prune_train_anywhere_adopt_compact(run: Run, here: Path) -> None:
    assert run(*PRUNE).code == 0
    program = compressor.load("m.pruned.pt")
    module = program.module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    Pruner.under_masks(module, program).attach(optimizer)
    for seed in range(3):
        optimizer.zero_grad()
        module(*program.example_inputs(4, seed=seed)).square().mean().backward()
        optimizer.step()
    torch.save({"state_dict": module.state_dict()}, "trained.pth")
    done = run("retrain", "m.pruned.pt", "--adopt", "trained.pth", "--json")
    assert done.code == 0, done.err
    assert done.json["output"] == "m.retrained.pt"
    assert [row["name"] for row in done.json["stages"]] == ["adopted"]
    assert "did not hold the masks" not in done.err
    back = compressor.load("m.retrained.pt")
    for name, tensor in module.tensors().items():
        assert torch.equal(tensor, back.module.tensors()[name]), name
    assert run("compact", "m.retrained.pt", "-o", "small.pt").code == 0


def test_a_training_without_masks_is_told_what_it_lost(run: Run, here: Path) -> None:
    assert run(*PRUNE).code == 0
    state = {name: torch.ones_like(t) for name, t in compressor.load("m.pruned.pt").module.tensors().items()}
    torch.save(state, "trained.pth")
    done = run("retrain", "m.pruned.pt", "--adopt", "trained.pth")
    assert done.code == 0, done.err
    assert "weights that are cut were not 0 (up to 1) and now are" in done.err


def test_weights_of_another_network_are_refused(run: Run, here: Path) -> None:
    assert run(*PRUNE).code == 0
    torch.save({"a": torch.zeros(2)}, "other.pth")
    done = run("retrain", "m.pruned.pt", "--adopt", "other.pth")
    assert done.code == 1 and "is it of this network?" in done.err
    assert not Path("m.retrained.pt").exists()
    assert run("retrain", "m.pruned.pt", "--adopt", "none.pth").code == 1
