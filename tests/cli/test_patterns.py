"""`--pattern` on the command line: refused without torch, ratios that a pattern implies, penalties of layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("rows", "--pattern rows: no such pattern; choose one of filter, channel"),
        ("filter+2:4", "--pattern filter+2:4: these do not combine"),
        ("4:2", "--pattern 4:2: of M weights N stay"),
    ],
)
def test_a_bad_pattern_is_a_usage_error(run: Run, here: Path, pattern: str, said: str) -> None:
    done = run("prune", "model.pt", "--pattern", pattern, "--ratio", "2x", "--dry-run")
    assert done.code == 2 and said in " ".join(done.err.split()) and done.out == ""


def test_a_bad_pattern_is_refused_without_importing_torch() -> None:
    arguments = ["prune", "x.pt", "-p", "rows", "-r", "2"]
    code = f"import sys; from compressor.cli.main import main; print(main({arguments}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_n_of_m_needs_no_ratio(run: Run, here: Path) -> None:
    done = run("prune", "model.pt", "--pattern", "2:4", "--dry-run", "--json")
    assert done.code == 0 and done.json["asked"] == done.json["got"] == 2.0
    assert any("left dense: conv1 (2:4 needs input channels divisible by 4, got 1)" in w for w in done.json["warnings"])
    other = run("prune", "model.pt", "--pattern", "2:4", "--ratio", "3x", "--dry-run")
    assert other.code == 2 and "means --ratio 2.00x of the layers it fits" in " ".join(other.err.split())
    neither = run("prune", "model.pt", "--pattern", "shape", "--dry-run")
    assert neither.code == 2 and "--ratio" in neither.err


def test_columns_are_shown(run: Run, here: Path) -> None:
    done = run("prune", "model.pt", "--pattern", "filter+shape", "--ratio", "3x", "--unit-share", "0.3", "--dry-run")
    assert done.code == 0 and "Columns" in done.out and "/72" in done.out


def test_a_layers_penalty_is_read(run: Run, here: Path) -> None:
    done = run("prune", "model.pt", "-r", "2x", "--layer-rho", "conv1", "--no-retrain")
    assert done.code == 2 and "--layer-rho conv1: write it as GLOB=RHO" in " ".join(done.err.split())
    done = run("prune", "model.pt", "-r", "2x", "--layer-rho", "conv9=1", "--epochs", "1", "--no-retrain", "-o", "a.pt")
    assert done.code == 2 and "--layer-rho conv9: matches no layer" in " ".join(done.err.split())


def test_a_network_without_residual_blocks_names_the_way_on(run: Run, here: Path) -> None:
    done = run("prune", "model.pt", "--pattern", "layer", "--ratio", "2x", "--method", "magnitude", "--no-retrain")
    said = " ".join(done.err.split())
    assert done.code == 1 and "--pattern layer: the network has no residual block cut widths instead" in said


def test_blocks_are_cut_and_told_by_layer(run: Run, here: Path) -> None:
    cut = ("-p", "layer", "-r", "1.3x", "--of", "macs", "--method", "magnitude", "--no-retrain", "--no-latency")
    done = run("prune", "init", "--arch", "resnet20", *cut, "-o", "p.pt", "--json")
    assert done.code == 0, done.err
    gone = {layer["name"] for layer in done.json["layers"] if layer["kept"] == 0}
    assert len(gone) == 4 and all(f"{name[:-1]}{3 - int(name[-1])}" in gone for name in gone), (
        "both convolutions of each"
    )
    small = run("compact", "p.pt", "-o", "c.pt", "--json")
    assert small.code == 0 and small.json["compact_macs"] == done.json["compact_macs"]
    assert len(small.json["branches"]) == 2
