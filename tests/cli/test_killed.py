"""Runs that are killed, starved of disk, or side by side: what is left is whole, and a resumed run ends the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, kill and flock")

SCRIPT = """
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)  # and no work before the forks: threads would not survive them
import compressor.analysis, compressor.data, compressor.exporting, compressor.formats, compressor.pruning
import compressor.report.compaction, compressor.report.exporting, compressor.report.pruning  # loaded once, before forks
from compressor.cli.main import main

def start(arguments, limit=None):
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if limit is not None:
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    os._exit(main(arguments))

def finish(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

KILLS = """
command, n_kills = json.loads(sys.argv[1]), int(sys.argv[2])
began = time.monotonic()
assert finish(start([*command, "-o", "whole.pt"])) == 0
span = time.monotonic() - began
chance = random.Random(0)
found = []
for i in range(n_kills):
    out, kills = f"killed{i}.pt", 0
    while True:  # killed again and again, later each time, until one run comes through
        resume = ["--resume"] if os.path.exists(out + ".resume") else []
        child = start([*command, "-o", out, *resume])
        if not found and not kills:  # at least one kill between two epochs, however fast the machine
            while not os.path.exists(out + ".resume"):
                time.sleep(0.001)
        else:
            time.sleep(span * chance.uniform(0.1, 0.9) * 1.3 ** kills)
        if os.waitpid(child, os.WNOHANG)[0] == child:
            break
        os.kill(child, signal.SIGKILL)
        finish(child)
        kills += 1
        if kills == 3:
            resume = ["--resume"] if os.path.exists(out + ".resume") else []
            assert finish(start([*command, "-o", out, *resume])) == 0
            break
    found.append((out, kills))
print(json.dumps(found))
"""

TRAIN = ("--batch-size", "16", "--device", "cpu", "--seed", "3", "-q")
PRUNE = ("prune", "model.pt", "-r", "2x", "--epochs", "6", "--retrain-epochs", "6", *TRAIN)
RETRAIN = ("retrain", "model.pt", "--epochs", "12", *TRAIN)


def python(script: str, here: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT + script, *arguments],
        cwd=here, env={**environment, "SOURCE_DATE_EPOCH": "0"}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("command", "n_kills"), [(PRUNE, 2), (RETRAIN, 1)], ids=["prune", "retrain"])
def test_killed_at_any_instant_and_resumed_it_is_the_same_file(
    here: Path, environment: dict[str, str], command: tuple[str, ...], n_kills: int
) -> None:
    found = json.loads(python(KILLS, here, environment, json.dumps(command), str(n_kills)))
    whole = (here / "whole.pt").read_bytes()
    for name, _ in found:
        assert (here / name).read_bytes() == whole, name
    left = {path.name for path in here.iterdir()} - {"net.py", "data.npz", "model.pt", "whole.pt"}
    left -= {name for name, _ in found} | {f"{name}.resume.lock" for name, _ in found}
    assert {name for name in left if ".tmp-" not in name} == set(), "a kill may leave a temporary file, nothing else"
    assert sum(kills for _, kills in found) >= 1


def test_twin_another_seed_gives_another_file(run: Any, here: Path) -> None:
    for name, seed in (("a.pt", "3"), ("b.pt", "4")):
        assert run(*PRUNE, "--seed", seed, "-o", name).code == 0
    assert (here / "a.pt").read_bytes() != (here / "b.pt").read_bytes()


SIDE_BY_SIDE = """
command = json.loads(sys.argv[1])
pairs = [start([*command, "-o", out]) for out in ("one.pt", "two.pt")]
codes = [finish(child) for child in pairs]
same = [start([*command, "-o", "same.pt"]) for _ in range(3)]
print(json.dumps([codes, sorted(finish(child) for child in same)]))
"""


def test_runs_side_by_side_do_not_meet(here: Path, environment: dict[str, str]) -> None:
    codes, same = json.loads(python(SIDE_BY_SIDE, here, environment, json.dumps(PRUNE)))
    assert codes == [0, 0]
    assert (here / "one.pt").read_bytes() == (here / "two.pt").read_bytes() == (here / "same.pt").read_bytes()
    assert same[0] == 0 and all(code in (1, 2) for code in same[1:]), "one run gets the name, the others are told"
    assert [path.name for path in here.iterdir() if "resume" in path.name or ".tmp" in path.name] == []


FULL = """
for command in json.loads(sys.argv[1]):
    print(finish(start(command, limit=2048)))
"""


def test_a_full_disk_leaves_nothing_half_written(here: Path, environment: dict[str, str]) -> None:
    commands = [
        ("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--no-retrain", "-o", "out.pt"),
        ("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--no-retrain", "-o", "model.pt", "--force"),
        ("retrain", "model.pt", "--epochs", "1", *TRAIN, "-o", "out.pt"),
        ("compact", "model.pt", "--allow-noop", "-o", "out.pt"),
        ("export", "model.pt", "-o", "out.onnx"),
    ]
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert python(FULL, here, environment, json.dumps(commands)).split() == ["1"] * len(commands)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only directories")
def test_a_read_only_directory_is_said_before_any_work(run: Any, here: Path) -> None:
    locked = here / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    done = run(*RETRAIN, "-o", "locked/out.pt")
    assert (done.code, "cannot write into" in done.err) == (1, True)


def test_a_directory_that_cannot_take_the_file_is_said(run: Any, here: Path) -> None:
    for output in ("/proc/out.pt", "/dev/full/out.pt", "none/out.pt", "."):
        done = run("compact", "model.pt", "--allow-noop", "-o", output)
        assert done.code == 1 and done.err.count("\n") <= 3 and "bug" not in done.err, done.err


def test_a_run_that_holds_the_output_is_told_of(run: Any, here: Path) -> None:
    from compressor.cli.reservation import reserved

    with reserved(here / "out.pt.resume"):
        done = run(*RETRAIN, "-o", "out.pt")
    assert (done.code, "another run is working for this file" in done.err) == (2, True), done.err
    assert not (here / "out.pt.resume.lock").exists()
    assert run(*RETRAIN[:3], "1", *TRAIN, "-o", "out.pt").code == 0
