"""The script of docs/ci.md, run as it stands on the page."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from compressor.asking.gates import METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def script(folder: Path, environment: dict[str, str], text: str) -> subprocess.CompletedProcess[str]:
    """`sh` on the text from the top of the repository, with this tree's `compress`."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    import sys

    (bin_folder / "compress").write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m compressor "$@"\n')
    (bin_folder / "compress").chmod(0o755)
    path = f"{bin_folder}:{environment['PATH']}"
    return subprocess.run(
        ["sh", "-c", text], cwd=ROOT, env={**environment, "PATH": path, "OUT": str(folder / "out")},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_script_runs_and_its_gates_are_met(tmp_path: Path, environment: dict[str, str]) -> None:
    done = script(tmp_path, environment, block("sh"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["passed"] is True
    assert json.loads((tmp_path / "out" / "before.json").read_text())["n_params"] == 266_610
    assert (tmp_path / "out" / "small.onnx").stat().st_size < (tmp_path / "out" / "dense.onnx").stat().st_size / 3


def test_twin_a_gate_out_of_reach_ends_it_with_3(tmp_path: Path, environment: dict[str, str]) -> None:
    lines = block("sh").partition("compress compact")[0].replace("compress analyze", ": analyze")
    lines = lines.replace("accuracy>=90%", "accuracy>=100.5%").replace("--retrain-epochs 2", "--no-retrain")
    done = script(tmp_path, environment, lines)
    assert done.returncode == 3, done.stderr
    assert not (tmp_path / "out" / "pruned.pt").exists()


def test_the_toml_of_the_page_is_accepted(run: Any, here: Path) -> None:
    (here / "compress.toml").write_text(block("toml"))
    done = run("prune", "model.pt", "--print-config")
    assert done.code == 0, done.err
    assert tomllib.loads(done.out)["prune"]["require"] == ["ratio>=4", "accuracy>=90%"]


@pytest.mark.parametrize("command", METRICS)
def test_the_page_names_every_requirement(command: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{command}` |")]
    named = {*re.findall(r"`(\w+)`", row)} | ({"accuracy", "loss"} if "metric of the task" in row else set())
    assert set(METRICS[command]) <= named
