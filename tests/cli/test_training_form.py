"""`prune` and `retrain` train a network as its author wrote it, where its code is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import compressor
from tests.cli.conftest import Run

HELPED = """
import torch
from torch import nn

class Helped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out, self.aux = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        h = self.one(x).relu()
        out = self.out(self.two(h).relu().mean((2, 3)))
        return (out, self.aux(h.mean((2, 3)))) if self.training else out
"""
OWN = "trains as its author wrote it, not the evaluation graph; share in the loss 0.3 each: output 1"
ARCH = ("--arch", "helped.py:Helped")
SHORT = ("--data", "data.npz", "--round-to", "1")
PRUNE = (
    "prune", "weights.pth", *ARCH, "--input", "1x8x8", "-r", "1.5x", *SHORT, "--retrain-epochs", "1", "-m", "magnitude",
)  # fmt: skip


@pytest.fixture
def helped(here: Path) -> Path:
    (here / "helped.py").write_text(HELPED)
    space: dict[str, object] = {}
    exec(HELPED, space)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        torch.save(space["Helped"]().state_dict(), here / "weights.pth")  # type: ignore[operator]
    return here


def test_auxiliary_heads_help_and_stay_at_home(run: Run, helped: Path) -> None:
    done = run(*PRUNE, "-o", "m.pruned.pt")
    assert done.code == 0, done.err
    assert OWN in done.err and "2 parameters train along and are no part of the result (aux.weight" in done.err
    assert not any(name.startswith("aux") for name in compressor.load("m.pruned.pt").module.tensors())
    assert run("compact", "m.pruned.pt", "-o", "small.pt").code == 0


def test_a_sweep_trains_so_too(run: Run, helped: Path) -> None:
    done = run(*PRUNE[:6], "-r", "1.3x,1.5x", *PRUNE[8:], "-o", "sweep")
    assert done.code == 0, done.err
    assert OWN in done.err
    assert run(*PRUNE, "-o", "m.pruned.pt", "-q").code == 0
    one, other = (compressor.load(f).module.tensors() for f in ("m.pruned.pt", "sweep/1.5x.pruned.pt"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_code_that_a_checkpoint_remembers_runs_when_it_is_named_again(run: Run, helped: Path) -> None:
    assert run(*PRUNE, "-o", "m.pruned.pt", "-q").code == 0
    train = ("retrain", "m.pruned.pt", "--epochs", "1")
    done = run(*train, "-o", "graph.pt")
    assert done.code == 0, done.err
    assert "the evaluation graph trains:" in done.err and "name it again with --arch" in done.err
    done = run(*train, *ARCH, "-o", "own.pt")
    assert done.code == 0, done.err
    assert OWN in done.err
    graph, own = (compressor.load(f) for f in ("graph.pt", "own.pt"))
    assert graph.module.tensors().keys() == own.module.tensors().keys()
    assert any(not torch.equal(t, own.module.tensors()[name]) for name, t in graph.module.tensors().items())
    own.check_masks()


def test_your_training_gets_the_module_that_is_named_again_with_the_weights(run: Run, helped: Path) -> None:
    (helped / "mine.py").write_text(
        "def train(model, loop):\n    print(loop.phase, type(model).__name__, model.out.weight.sum().item())\n"
    )
    assert run(*PRUNE, "--no-retrain", "-o", "m.pt", "-q").code == 0
    asked = ("prune", "m.pt", *ARCH, "-r", "1.2x", "-m", "magnitude", "--train", "mine.py:train", "-o", "n.pt")
    done = run(*asked)
    assert done.code == 0, done.err
    total = compressor.load("n.pt").module.tensors()["out.weight"].sum().item()
    assert f"retrain Helped {total}" in done.err
