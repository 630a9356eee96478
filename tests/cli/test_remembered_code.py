"""A checkpoint that remembers code as its data or task must not run it by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import compressor
from compressor.cli.main import main
from compressor.program import InputSpec

CODE = """
from pathlib import Path
import torch
from torch.utils.data import TensorDataset
Path(__file__).with_name("ran").touch()
def data():
    torch_data = TensorDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))
    return torch_data, torch_data
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    source = tmp_path / "theirs.py"
    source.write_text(CODE)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    program = compressor.capture(model, [InputSpec("x", (None, 4))])
    path = tmp_path / "model.pt"
    compressor.save(program.replace(record=replace(program.record, data=f"{source}:data")), path)
    return path


def test_remembered_code_is_not_run(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(checkpoint)]) == 0
    assert "repeat it as --data" in capsys.readouterr().err
    assert not checkpoint.with_name("ran").exists()


def test_repeated_code_is_run(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ref = f"{checkpoint.with_name('theirs.py')}:data"
    assert main(["analyze", str(checkpoint), "--data", ref]) == 0
    assert checkpoint.with_name("ran").exists()
    assert "accuracy" in capsys.readouterr().out


def test_needed_data_as_remembered_code_is_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", str(checkpoint), "--ratio", "1.5x"]) == 2
    assert "repeat it as --data" in capsys.readouterr().err
    assert not checkpoint.with_name("ran").exists()
