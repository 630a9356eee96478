"""The script for a GPU, rehearsed on the CPU without a network and within a time: every part writes rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu, packed
from benchmarks.cifar10_runs import CHECKPOINTS
from benchmarks.gpu import PARTS, Part, compiled_is_faster
from benchmarks.side_by_side import ROOT, json_lines
from compressor.models import build

NO_NETWORK = """
import pathlib, socket
def refuse(*address, **rest):
    (pathlib.Path(__file__).parent / "asked.txt").open("a").write(f"{address}\\n")
    raise OSError("there is no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a rehearsal leaves, of made-up images and weights that lie there as the published ones do."""
    folder, draws = tmp_path_factory.mktemp("gpu"), np.random.default_rng(0)
    (folder / "binaries").mkdir()
    for name in packed.FILES:
        records = draws.integers(0, 256, (32, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / "binaries" / name).write_bytes(records.tobytes())
    parts = packed.write(folder / "binaries", folder)
    state = {f"module.{name}": tensor for name, tensor in build("resnet20", {}, seed=0).module.state_dict().items()}
    torch.save({"state_dict": state}, folder / CHECKPOINTS["resnet20"])
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    words = ["--out", folder / "out", "--rehearse", "--seconds", "6000", "--checkpoints", folder]
    words += ["--cifar", folder / "again", "--packed", *parts]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *map(str, words)], cwd=ROOT, env=environment, check=False
    )
    (folder / "code.txt").write_text(str(done.returncode))
    return folder


def rows(folder: Path, part: str) -> list[dict[str, Any]]:
    return [row for row in json_lines(folder / "out" / "rows.jsonl") if row["part"] == part]


def test_every_part_comes_to_its_end_and_the_report_says_so(rehearsal: Path) -> None:
    report = (rehearsal / "out" / "report.md").read_text()
    assert (rehearsal / "code.txt").read_text() == "0", report
    assert [(row["name"], row["how"]) for row in rows(rehearsal, "end of a part")] == [(p.name, "done") for p in PARTS]
    assert all(f"| {part.name} | done |" in report for part in PARTS)
    assert rows(rehearsal, "machine")[0]["measures"] is False, "a rehearsal measures nothing"


def test_every_part_leaves_what_it_found(rehearsal: Path) -> None:
    assert {row["code"] for row in rows(rehearsal, "commands")} == {0}
    assert [row["side_by_side"] for row in rows(rehearsal, "steps")] == [1, 1, 1, 2, 2]
    assert (rehearsal / "out" / "latency.json").is_file()
    epochs = [row for row in rows(rehearsal, "cifar") if "epoch" in row]
    ends = {row["run"]: row["row"]["method"] for row in rows(rehearsal, "cifar") if "row" in row}
    assert sorted(ends.values()) == ["admm", "magnitude"] and {row["run"] for row in epochs} == set(ends)


def test_nobody_asked_for_the_network(rehearsal: Path) -> None:
    asked = rehearsal / "asked.txt"
    assert not asked.exists(), asked.read_text()


def test_twin_who_asks_is_noticed(rehearsal: Path) -> None:
    (rehearsal / "twin").mkdir()
    (rehearsal / "twin" / "sitecustomize.py").write_text(NO_NETWORK)
    code = "import urllib.request; urllib.request.urlopen('http://pypi.org')"
    environment = os.environ | {"PYTHONPATH": str(rehearsal / "twin")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == 1 and "pypi.org" in (rehearsal / "twin" / "asked.txt").read_text()


def made_up(name: str, code: str, seconds: float = 60) -> Part:
    return Part(name, seconds, "", lambda given, left: [sys.executable, "-S", "-c", code])


def test_a_part_that_fails_does_not_end_the_rest(tmp_path: Path) -> None:
    given = gpu.parser().parse_args(["--out", str(tmp_path), "--seconds", "500"])
    given.device = "cpu"
    parts = [
        made_up("bad", "raise SystemExit('no such device')"),
        made_up("hangs", "import time; time.sleep(600)", 6),
        made_up("good", "print('measured')"),
    ]
    ended = gpu.run(parts, given)
    assert [end.how for end in ended] == ["failed", "out of time", "done"]
    told = [row for row in json_lines(tmp_path / "rows.jsonl") if row["part"] == "end of a part"]
    assert [row["how"] for row in told] == ["failed", "out of time", "done"]
    report = (tmp_path / "report.md").read_text()
    assert "no such device" in report and "measured" in report


def test_when_the_time_is_over_parts_are_not_begun(tmp_path: Path) -> None:
    given = gpu.parser().parse_args(["--out", str(tmp_path), "--seconds", "1"])
    given.device = "cpu"
    assert [end.how for end in gpu.run([made_up("late", "print(1)")], given)] == ["not begun"]


def test_the_plan_says_what_runs_in_which_order() -> None:
    told = gpu.plan(PARTS, 570)
    assert told.startswith("within 570 s") and [told.index(part.name) for part in PARTS] == sorted(
        told.index(part.name) for part in PARTS
    )


def test_steps_are_compiled_where_that_was_faster() -> None:
    def row(compile: bool, rate: float, side_by_side: int = 1) -> dict[str, Any]:
        return {"part": "steps", "compile": compile, "epochs_per_minute": rate, "side_by_side": side_by_side}

    assert compiled_is_faster([row(False, 5.0), row(True, 9.0), row(False, 30.0, 8)])
    assert not compiled_is_faster([row(False, 5.0), row(True, 4.0)])
    assert not compiled_is_faster([row(False, 5.0)]) and not compiled_is_faster([])
