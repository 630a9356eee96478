"""Networks and constructors that print: standard output belongs to the result, their words go to standard error."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.cli.main import main
from compressor.formats import load

NET = """
import torch, torch.nn as nn
print("module is imported")
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        print("building Net: 3 layers")
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)
    def forward(self, x):
        print("shape", tuple(x.shape))
        return self.b(self.a(x).relu())
"""


@pytest.fixture
def net(tmp_path: Path) -> list[str]:
    path = tmp_path / "talk.py"
    path.write_text(NET)
    return ["init", "--arch", f"{path}:Net", "--input", "3x8x8"]


@pytest.mark.parametrize("form", [["--json"], ["--table", "csv"], ["--table", "markdown"], []])
def test_what_code_prints_is_no_part_of_the_result(
    form: list[str], net: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", *net, *form]) == 0
    out, err = capsys.readouterr()
    assert all(word not in out for word in ("module is imported", "building Net", "shape ("))
    assert all(word in err for word in ("module is imported", "building Net", "shape ("))
    if form == ["--json"]:
        assert json.loads(out)["n_units"] == 16
    elif "csv" in form:
        assert out.splitlines()[0].count(",") > 3


def test_a_model_on_standard_output_is_the_model_alone(net: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compressor", "prune", *net, "-r", "1.5x", "-m", "magnitude", "--no-retrain", "-o", "-"],
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"building Net" in done.stderr and b"building Net" not in done.stdout
    assert load(io.BytesIO(done.stdout)).n_parameters > 0


def test_standard_output_is_itself_again_afterwards(net: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    assert main(["analyze", *net, "--json"]) == 0
    assert sys.stdout is before
    capsys.readouterr()
    assert main(["analyze", "no-such-file.pt", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "ModelError"
