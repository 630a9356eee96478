"""A checkpoint that names code as its data, task or architecture must not run it by itself, in any command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import compressor
from compressor.cli.main import main
from compressor.errors import UntrustedCodeError
from compressor.program import InputSpec

CODE = """
from pathlib import Path
import torch
from compressor.data import Classification
from torch.utils.data import TensorDataset
Path(__file__).with_name("ran").touch()
def data():
    torch_data = TensorDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))
    return torch_data, torch_data
class Task(Classification):
    pass
"""

FIELDS = {
    "data in a file": ("data", "{folder}/theirs.py:data"),
    "data in a module": ("data", "theirs_as_module:data"),
    "task in a file": ("task", "{folder}/theirs.py:Task"),
    "task in a module": ("task", "theirs_as_module:Task"),
    "task in a module called like a kind of data": ("task", "cifar10:Task"),
    "arch in a file": ("arch", "{folder}/theirs.py:Task"),
    "arch in a module": ("arch", "theirs_as_module:Task"),
}

COMMANDS = {
    "analyze": ["analyze", "{model}"],
    "analyze --sensitivity": ["analyze", "{model}", "--sensitivity"],
    "analyze --report": ["analyze", "{model}", "--report", "{folder}/page.html"],
    "prune": ["prune", "{model}", "-r", "1.5x", "-o", "{folder}/pruned.pt"],
    "prune --no-retrain": ["prune", "{model}", "-r", "1.5x", "--no-retrain", "-o", "{folder}/pruned.pt"],
    "prune --dry-run": ["prune", "{model}", "-r", "1.5x", "--dry-run"],
    "retrain": ["retrain", "{model}", "-o", "{folder}/retrained.pt"],
    "retrain --teacher": ["retrain", "{model}", "--teacher", "{model}", "-o", "{folder}/retrained.pt"],
    "compact": ["compact", "{model}", "-o", "{folder}/compact.pt"],
    "export": ["export", "{model}", "-o", "{folder}/model.onnx"],
    "export --int8": ["export", "{model}", "--int8", "-o", "{folder}/model.onnx"],
    "bench": ["bench", "{model}", "--min-runs", "2", "--min-seconds", "0"],
    "bench --accuracy": ["bench", "{model}", "--accuracy", "--min-runs", "2", "--min-seconds", "0"],
    "bench --require accuracy": ["bench", "{model}", "--require", "accuracy>=0", "--min-runs", "2"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with code that says when it ran, under every name that the references use."""
    for name in ("theirs.py", "theirs_as_module.py", "cifar10.py"):
        (tmp_path / name).write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("theirs_as_module", "cifar10"):
        sys.modules.pop(name, None)


def checkpoint(folder: Path, field: str, ref: str) -> Path:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    program = compressor.capture(model, [InputSpec("x", (None, 4))])
    path = folder / "model.pt"
    compressor.save(program.replace(record=replace(program.record, **{field: ref})), path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("named", FIELDS)
def test_no_command_runs_what_a_checkpoint_remembers(
    command: str, named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field, ref = FIELDS[named]
    ref = ref.format(folder=folder)
    path = checkpoint(folder, field, ref)
    code = main([word.format(model=path, folder=folder) for word in COMMANDS[command]])
    told = capsys.readouterr().err
    assert not (folder / "ran").exists(), told
    assert "bug in compress" not in told
    if field == "task" and "retrain" in command.split():
        assert code == 2 and f"repeat it as --task {ref}" in told
    if "--accuracy" in command and field == "data":
        assert code == 2 and f"repeat it as --data {ref}" in told


@pytest.mark.parametrize(
    ("field", "ref"), [("data", "{folder}/theirs.py:data"), ("task", "{folder}/theirs.py:Task")], ids=["data", "task"]
)
@pytest.mark.parametrize("command", ["analyze", "bench --accuracy"])
def test_code_that_the_user_repeats_is_run(
    command: str, field: str, ref: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The twin: what is refused above is what would run."""
    ref = ref.format(folder=folder)
    path = checkpoint(folder, field, ref)
    words = [word.format(model=path, folder=folder) for word in COMMANDS[command]]
    data = [] if field == "data" else ["--data", f"{folder}/theirs.py:data"]
    assert main([*words, f"--{field}", ref, *data]) == 0
    assert (folder / "ran").exists()
    assert "accuracy" in capsys.readouterr().out.lower()


def test_needed_data_as_remembered_code_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(folder, "data", f"{folder}/theirs.py:data")
    assert main(["prune", str(path), "--ratio", "1.5x"]) == 2
    assert "repeat it as --data" in capsys.readouterr().err


def test_from_python_code_is_run_only_when_the_caller_says_so(folder: Path) -> None:
    program = compressor.load(checkpoint(folder, "data", f"{folder}/theirs.py:data"))
    with pytest.raises(UntrustedCodeError, match="trust_code=True"):
        compressor.open_data(program.record.data or "")
    with pytest.raises(UntrustedCodeError, match="--task"):
        compressor.open_task("cifar10:Task")
    assert not (folder / "ran").exists()
    assert compressor.open_data(program.record.data or "", trust_code=True).n_val == 8
