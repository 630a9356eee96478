"""The worked examples of tasks, as their docstrings say: trained a little, pruned, retrained, compacted, gated."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from compressor.cli.main import main
from compressor.formats import load

TASKS = Path(__file__).parents[2] / "sample_models" / "tasks"
TRAIN = ["--batch-size", "32", "--lr", "0.01", "--device", "cpu", "-q"]


@pytest.mark.parametrize(
    ("name", "shape", "gate"),
    [("regression", "8", "mse<=0.5"), ("segmentation", "1x16x16", "iou>=30%"), ("detection", "1x32x32", "recall>=10%")],
)
def test_an_example_goes_through_the_pipeline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    shape: str,
    gate: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = TASKS / f"{name}.py"
    on = ["--data", f"{file}:data", "--task", f"{file}:Task", *TRAIN]
    cut = ["-r", "1.5x", "-m", "magnitude", "--retrain-epochs", "8"]
    assert main(["prune", "init", "--arch", f"{file}:Net", "--input", shape, *cut, *on, "-o", "p.pt"]) == 0
    assert main(["retrain", "p.pt", "--epochs", "4", *on, "--require", gate, "-o", "r.pt"]) == 0
    assert main(["compact", "r.pt", *on[:4], "--require", gate, "--require", "ratio>=1.5", "-o", "c.pt"]) == 0
    printed = capsys.readouterr()
    assert re.split(r"[<>]", gate)[0] in printed.out, printed.err
    assert load("c.pt").n_parameters * 1.5 <= load("r.pt").n_parameters
    failing = "mse<=0" if name == "regression" else gate.split(">=")[0] + ">=101%"
    assert main(["compact", "r.pt", *on[:4], "--require", failing, "-o", "d.pt"]) == 3


@pytest.mark.parametrize("name", ["regression", "segmentation", "detection"])
def test_the_command_in_the_docstring_is_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TASKS.parents[1])
    text = (TASKS / f"{name}.py").read_text(encoding="utf-8").partition("    compress ")[2].partition('"""')[0]
    words = shlex.split(text.replace("\\\n", " "))
    assert main([*words, "--print-config"]) == 0
    assert f"{name}.py:Task" in capsys.readouterr().out
