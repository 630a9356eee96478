"""`--until LAYER` on the command line: named where a capture fails, taken, and remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.cli.main import main
from compressor.formats import load

NET = """
import torch, torch.nn as nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)
    def forward(self, x):
        y = self.head(self.a(x).relu())
        return y[y.flatten(1).amax(1) > 0.5] if y.max() > 0.5 else y
"""


def test_a_network_ends_where_the_command_line_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "net.py", tmp_path / "p.pt"
    path.write_text(NET)
    net = ["init", "--arch", f"{path}:Net", "--input", "3x8x8"]
    assert main(["analyze", *net]) == 1
    assert "--until head" in capsys.readouterr().err
    prune = ["-r", "1.5x", "-m", "magnitude", "--no-retrain", "--round-to", "1", "-o", str(out)]
    assert main(["prune", *net, "--until", "head", *prune]) == 0
    assert "captured up to head, as --until says" in capsys.readouterr().err
    assert load(out).record.until == ("head",)
    assert main(["analyze", str(out), "--until", "a"]) == 2
    assert "whose graph was made already" in capsys.readouterr().err
    assert main(["analyze", *net, "--until", "haed"]) == 2
    assert "did you mean head?" in capsys.readouterr().err
