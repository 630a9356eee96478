"""`prune --train`: the user's own training between the cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

import compressor
from tests.cli.conftest import Run

LOOP = """
import torch

def train(model, loop):
    print(f"{loop.phase} {type(model).__name__}")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loop.attach(optimizer, steps=4)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8)).square().mean().backward()
        optimizer.step()

number = 3
"""


@pytest.fixture
def loop(here: Path) -> Path:
    (here / "mine.py").write_text(LOOP)
    return here


def test_the_module_of_an_arch_trains(run: Run, loop: Path) -> None:
    asked = ("prune", "init", "--arch", "net.py:Net", "--input", "1x8x8", "-r", "2x", "--train", "mine.py:train")
    done = run(*asked, "-o", "m.pruned.pt", "--json")
    assert done.code == 0, done.err
    assert [row["name"] for row in done.json["stages"]] == ["dense", "admm", "hard prune", "retrain"]
    assert done.json["got"] >= 2.0
    assert "search Net" in done.err and "retrain Net" in done.err, "the words of the user's code are no result"
    remembered = compressor.load("m.pruned.pt").record.steps[-1]
    assert remembered.options["train"] == "mine.py:train"
    assert run("compact", "m.pruned.pt", "-o", "small.pt").code == 0


def test_a_checkpoints_graph_trains_and_is_measured(run: Run, loop: Path) -> None:
    asked = ("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--steps", "2", "--train", "mine.py:train")
    done = run(*asked, "--json")
    assert done.code == 0, done.err
    assert "there is no code of the network here, so its evaluation graph trains" in done.err
    first, last = done.json["stages"][0], done.json["stages"][-1]
    assert "accuracy" in first["metrics"] and "accuracy" in last["metrics"]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--no-retrain",), 2, "--no-retrain is of the tool's own training; leave it out, return at once"),
        (("--epochs", "3"), 2, "--epochs is of the tool's own training; leave it out, your code says it"),
        (("--lr", "0.1"), 2, "--lr is of the tool's own training"),
        (("--distill", "0.5"), 2, "--distill is of the tool's own training"),
        (("--resume",), 2, "--resume is of the tool's own training; save and load in your code"),
        (("--save-every",), 2, "--save-every is of the tool's own training"),
        (("--ratio", "2x,4x"), 2, "takes one --ratio"),
        (("--recalibrate", "4"), 2, "recovery is of the tool's own loop"),
    ],
)
def test_what_is_of_the_tools_own_training_is_refused(
    run: Run, loop: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    done = run("prune", "model.pt", "-r", "2x", "--train", "mine.py:train", *more)
    assert (done.code, said in done.err) == (code, True), done.err
    assert not (loop / "model.pruned.pt").exists()


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("mine.py:nothing", "has no `nothing`; it defines train"),
        ("mine.py:number", "is int, not a function of the network and a loop"),
        ("mine.py", "not a reference; write package.module:name"),
        ("other.py:train", "no such file"),
    ],
)
def test_a_reference_that_is_no_function(run: Run, loop: Path, ref: str, said: str) -> None:
    done = run("prune", "model.pt", "-r", "2x", "--train", ref)
    assert done.code == 2 and said in done.err, done.err


def test_a_dry_run_trains_nothing(run: Run, loop: Path) -> None:
    done = run("prune", "model.pt", "-r", "2x", "--train", "mine.py:train", "--dry-run")
    assert done.code == 0 and "search" not in done.err, done.err


def test_a_file_that_was_only_found_names_no_training(run: Run, loop: Path) -> None:
    (loop / "mine.py").write_text(LOOP + "\nfrom pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    (loop / "compress.toml").write_text('[prune]\ntrain = "mine.py:train"\n')
    done = run("prune", "model.pt", "-r", "2x")
    assert done.code == 2 and "does not choose which code runs before you allow it" in done.err, done.err
    assert not (loop / "ran").exists()
    assert run("prune", "model.pt", "-r", "2x", "--config", "compress.toml").code == 0, "named, it is the user's word"
    assert (loop / "ran").exists()
