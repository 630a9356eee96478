"""`--plugin`: axis rules of the user's, known to every command that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.fft.fft2(self.conv(x).relu()).abs()
        return self.fc(x.mean((2, 3)))
"""

PLUGIN = """
import torch
import compressor
from compressor.axes import Arguments, Context, Value

@compressor.register_axis_rule(torch.ops.aten.fft_fft2.default)
def fft(ctx: Context, node: torch.fx.Node, a: Arguments) -> Value:
    "The transformed dimensions are pinned, the others pass; a transform of zeros is 0."
    x = a["self"]
    dims = [x.normal_dim(dim) for dim in a["dim"]]
    for dim in dims:
        ctx.pin(x.along(dim), "a Fourier transform mixes this dimension")
    return Value(ctx.out.sizes, x.apart_from(dims))
"""

SOURCE = ("init", "--arch", "fft.py:Net", "--input", "1x8x8")
CUT = ("--ratio", "2x", "--method", "magnitude", "--no-retrain")


@pytest.fixture
def plugin(here: Path) -> Iterator[None]:
    from compressor.axes import table

    (here / "fft.py").write_text(NET)
    (here / "rules.py").write_text(PLUGIN)
    rules = {
        name: dict(value) for name, value in vars(table).items() if isinstance(value, dict) and name != "__builtins__"
    }
    yield
    for name, value in rules.items():
        if not name.startswith("__"):
            held = vars(table)[name]
            held.clear()
            held.update(value)


def test_without_the_plugin_the_operator_pins(run: Any, plugin: None) -> None:
    found = run("analyze", *SOURCE, "--json")
    assert found.code == 0, found.err
    assert any("fft_fft2" in name for name in found.json["unknown_operators"])
    assert found.json["uncounted_operators"] == ["aten.fft_fft2.default"]
    told = "MACs are without aten.fft_fft2.default"
    assert told in run("analyze", *SOURCE).out
    assert run("prune", *SOURCE, *CUT, "-o", "p.pt").code == 1


@pytest.mark.parametrize("given", ["command line", "named file", "found file", "environment"])
def test_with_it_the_whole_pipeline_runs(
    run: Any, here: Path, plugin: None, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: tuple[str, ...] = ()
    if given == "command line":
        more = ("--plugin", "rules.py")
    elif given.endswith("file"):
        (here / "compress.toml").write_text('plugin = ["rules.py"]\n')
        more = ("--config", "compress.toml") if given == "named file" else ("--allow-config",)
    else:
        monkeypatch.setenv("COMPRESS_PLUGIN", str(here / "rules.py"))
    assert run("analyze", *SOURCE, *more, "--json").json["unknown_operators"] == []
    pruned = run("prune", *SOURCE, *CUT, *more, "-o", "p.pt")
    assert pruned.code == 0, pruned.err
    done = run("compact", "p.pt", *more, "-o", "c.pt", "--json")
    assert done.code == 0, done.err
    assert done.json["agreement"]["float64_relative"] <= 1e-10
    assert torch.load("c.pt", weights_only=True)["state_dict"]["conv.weight"].shape[0] < 16


def test_a_plugin_that_is_not_there_or_raises_is_one_message(run: Any, here: Path) -> None:
    done = run("analyze", "model.pt", "--plugin", "none.py")
    assert (done.code, "none.py: no such file" in done.err) == (2, True)
    (here / "bad.py").write_text("1 / 0")
    done = run("analyze", "model.pt", "--plugin", "bad.py")
    assert (done.code, "importing bad.py raised ZeroDivisionError" in done.err) == (2, True)
    done = run("analyze", "model.pt", "--plugin", "a b")
    assert (done.code, "neither a Python file nor a module" in done.err) == (2, True)
