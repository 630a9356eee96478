"""`--require` of the commands that write a model: exit 3, no file, and training that is not lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.formats import load

ONE_SHOT = ("prune", "model.pt", "--ratio", "3x", "--method", "magnitude", "--no-retrain")
TRAIN = ("--epochs", "1", "--batch-size", "16", "--device", "cpu")

TASK = """
class Error:
    name, primary, higher_is_better = "error", "miss", False
    def loss(self, outputs, batch, *, smoothing=0.0):
        import torch
        return torch.nn.functional.cross_entropy(outputs, batch.target)
    def metrics(self, outputs, batch):
        wrong = (outputs.argmax(1) != batch.target).sum()
        return {"miss": (float(wrong), len(batch.target))}
"""


def requirements(done: Any) -> list[tuple[str, bool]]:
    return [(r["text"], r["passed"]) for r in done.json["requirements"]]


@pytest.mark.parametrize(
    ("command", "gate"),
    [
        (ONE_SHOT, "ratio>=3"),
        (("retrain", "model.pt", *TRAIN), "accuracy>=0%"),
        (("compact", "model.pt", "--allow-noop"), "size<=1MiB"),
        (("export", "model.pt"), "difference<=1e-3"),
        (("export", "model.pt"), "agreement>=99%"),
    ],
)
def test_what_is_met_is_written_and_said(run: Any, here: Path, command: tuple[str, ...], gate: str) -> None:
    done = run(*command, "--require", gate, "--json", "-o", "out")
    assert done.code == 0, done.err
    assert requirements(done) == [(gate, True)]
    assert done.json["passed"] is True and done.json["output"] == "out"
    assert (here / "out").exists()


@pytest.mark.parametrize(
    ("command", "gate"),
    [
        (ONE_SHOT, "ratio>=4"),
        (ONE_SHOT, "size<=1KiB"),
        (("retrain", "model.pt", *TRAIN), "accuracy>100%"),
        (("compact", "model.pt", "--allow-noop"), "params<=10"),
        (("compact", "model.pt", "--allow-noop"), "size<=1KiB"),
        (("export", "model.pt"), "size<=1KiB"),
    ],
)
def test_what_is_not_met_is_3_and_leaves_no_file(run: Any, here: Path, command: tuple[str, ...], gate: str) -> None:
    before = {path.name for path in here.iterdir()}
    done = run(*command, "--require", gate, "--require", "params>=0" if command[0] != "retrain" else "loss>=0",
               "--json", "-o", "out")  # fmt: skip
    assert done.code == 3, done.err
    assert [passed for _, passed in requirements(done)] == [False, True]
    assert (done.json["passed"], done.json["output"]) == (False, None)
    assert f"1 of 2 requirements failed: {gate}: got" in done.err
    assert "the model was not written" in done.err
    assert done.err.count("\n") <= 12 and {path.name for path in here.iterdir()} - before <= {"out.resume"}


@pytest.mark.parametrize("pattern", ["channel", "unstructured"])
def test_counts_are_judged_as_compact_counts_them(run: Any, here: Path, pattern: str) -> None:
    made = run("prune", "model.pt", "-r", "2x", "-p", pattern, *ONE_SHOT[4:], "--json", "-o", "p.pt")
    assert made.code == 0, made.err
    left = run("compact", "p.pt", "--allow-noop", "--lowering", "dense", "--json", "-o", "c.pt").json
    counts = {"params": left["compact_params"], "macs": left["compact_macs"]}
    assert {"params": made.json["compact_params"], "macs": made.json["compact_macs"]} == counts
    assert (counts["params"] < made.json["dense_params"]) == (pattern == "channel")
    for name, count in counts.items():
        gates = ("--require", f"{name}<={count}", "--require", f"{name}<{count}")
        done = run(
            "prune", "model.pt", "-r", "2x", "-p", pattern, *ONE_SHOT[4:], *gates, "--force", "--json", "-o", "q.pt"
        )
        assert [passed for _, passed in requirements(done)] == [True, False]


DEAD = """
import torch
from torch import nn

class Net(nn.Module):
    '''A third of the filters of each convolution is 0 by a buffer, as torch.nn.utils.prune leaves it.'''

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1), nn.Linear(24, 3)
        self.register_buffer("alive", (torch.arange(24) % 3 > 0).float().reshape(24, 1, 1, 1))

    def forward(self, x):
        for layer in (self.a, self.b):
            x = nn.functional.conv2d(x, layer.weight * self.alive, padding=1).relu()
        return self.fc(x.mean((2, 3)))
"""


@pytest.mark.parametrize("of", ["params", "macs"])
def test_what_was_dead_before_the_cut_counts_as_compact_counts_it(run: Any, here: Path, of: str) -> None:
    (here / "dead.py").write_text(DEAD)
    command = ("prune", "init", "--arch", "dead.py:Net", "--input", "1x8x8", "-r", "1.2x", "--of", of, *ONE_SHOT[4:])
    made = run(*command, "--json", "-o", "p.pt").json
    left = run("compact", "p.pt", "--json", "-o", "c.pt").json
    kept = {"params": left["compact_params"], "macs": left["compact_macs"]}
    assert {"params": made["compact_params"], "macs": made["compact_macs"]} == kept
    assert {"params": made["kept_params"], "macs": made["kept_macs"]} == kept
    assert made["got"] == pytest.approx(made[f"dense_{of}"] / kept[of]) and made["got"] > 1.3
    assert any("the network had dead or constant units before" in warning for warning in made["warnings"])
    assert run(*command, "--require", f"{of}<={kept[of]}", "-o", "q.pt").code == 0
    dry = run(*command, "--dry-run", "--json").json
    assert (dry["compact_params"], dry["compact_macs"]) == (kept["params"], kept["macs"])


def test_an_old_file_stays_when_the_new_one_fails(run: Any, here: Path) -> None:
    (here / "out").write_bytes(b"old")
    assert run(*ONE_SHOT, "--require", "ratio>=9", "-o", "out", "--force").code == 3
    assert (here / "out").read_bytes() == b"old"


def test_a_failed_gate_keeps_the_training(run: Any, here: Path) -> None:
    command = ("prune", "model.pt", "-r", "2x", *TRAIN, "--retrain-epochs", "1", "-o", "out.pt")
    failed = run(*command, "--require", "accuracy>100%")
    assert failed.code == 3
    assert "its training is in out.pt.resume" in failed.err
    again = run(*command, "--require", "accuracy>=0%", "--resume", "--json")
    assert again.code == 0, again.err
    assert run(*command[:-1], "whole.pt").code == 0
    whole, resumed = load("whole.pt").module.tensors(), load("out.pt").module.tensors()
    assert all((whole[name] == resumed[name]).all() for name in whole)
    assert not (here / "out.pt.resume").exists()


def test_a_pipe_gets_nothing_from_a_failed_gate(shell: Any, here: Path) -> None:
    line = " ".join(ONE_SHOT)
    done = shell(f"compress {line} --require 'ratio>=9' -o - -q > out.pt")
    assert (done.returncode, (here / "out.pt").read_bytes()) == (3, b"")


@pytest.mark.parametrize(
    ("command", "gate", "told"),
    [
        ("prune", "acuracy>=1", "did you mean accuracy?"),
        ("compact", "latency<=1ms", "latency is not measured; "),
        ("export", "accuracy>=1", "accuracy is not measured"),
        ("retrain", "ratio>=2", "ratio is not measured; "),
    ],
)
def test_a_gate_that_cannot_be_meant_is_refused_first(run: Any, command: str, gate: str, told: str) -> None:
    done = run(command, "no-such-file.pt", *(("-r", "2x") if command == "prune" else ()), "--require", gate)
    assert (done.code, told in done.err) == (2, True), done.err


def test_a_metric_of_a_task_can_be_gated_and_a_wrong_one_is_refused_before_training(run: Any, here: Path) -> None:
    (here / "task.py").write_text(TASK)
    command = ("retrain", "model.pt", *TRAIN, "--task", "task.py:Error", "-o", "out.pt")
    assert run(*command, "--require", "miss<=100%").code == 0
    done = run(*command, "--force", "--require", "mis<=100%", "--epochs", "100000")
    assert done.code == 2
    assert "the task does not measure mis; it gives loss, miss" in done.err


def test_a_gate_about_data_needs_data(run: Any, here: Path) -> None:
    (here / "data.npz").unlink()
    done = run(*ONE_SHOT, "--require", "accuracy>=0")
    assert done.code == 1, done.err
    done = run(*ONE_SHOT[:1], "init", *ONE_SHOT[2:], "--arch", "net.py:Net", "--input", "1x8x8", "--require",
               "accuracy>=0", "-o", "x.pt")  # fmt: skip
    assert (done.code, "no data: --require accuracy>=0 needs a data set" in done.err) == (2, True)


def test_a_dry_run_answers_what_can_be_counted(run: Any, here: Path) -> None:
    gates = ("--require", "ratio>=3", "--require", "accuracy>=100%", "--require", "size<=1KiB")
    done = run(*ONE_SHOT, "--dry-run", *gates, "--json")
    assert (done.code, requirements(done)) == (0, [("ratio>=3", True)])
    assert run(*ONE_SHOT, "--dry-run", "--require", "params<=10").code == 3
