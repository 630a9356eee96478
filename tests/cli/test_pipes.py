"""The command line as a shell sees it: pipes, streams, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from compressor.formats import load

PRUNE = "prune model.pt --ratio 3x --method magnitude --no-retrain"


def test_models_flow_through_pipes(shell: Any, here: Path) -> None:
    done = shell(f"compress {PRUNE} -o - | compress compact - -o - -q | compress export - -o small.onnx --json")
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert (body["model"], body["output"]) == ("standard input", "small.onnx")
    assert (here / "small.onnx").stat().st_size == body["size_bytes"]
    assert b"magnitude, channel: asked 3.00x" in done.stderr  # the table makes way for the model


def test_a_checkpoint_from_a_stream_is_the_one_from_a_file(shell: Any, run: Any, here: Path) -> None:
    done = shell(f"compress {PRUNE} -o - -q > streamed.pt")
    assert done.returncode == 0, done.stderr
    assert run(*PRUNE.split(), "-o", "written.pt").code == 0
    streamed, written = load(here / "streamed.pt"), load(here / "written.pt")
    assert streamed.module.state_dict().keys() == written.module.state_dict().keys()
    assert all((a == b).all() for a, b in zip(streamed.masks.values(), written.masks.values(), strict=True))
    assert streamed.record.steps[0].parent_sha256 == written.record.steps[0].parent_sha256
    assert done.stderr == b""  # -q with the model on stdout: not a word


def test_garbage_from_a_pipe_is_one_message(shell: Any) -> None:
    done = shell("head -c 3000 /dev/zero | compress analyze - --json")
    assert done.returncode == 1
    body = json.loads(done.stdout)
    assert body["schema"] == "compress.error/1"
    assert body["message"].startswith("standard input: ")
    assert done.stderr.count(b"\n") <= 3


def test_an_early_end_of_the_reader_is_quiet(shell: Any) -> None:
    large = "prune init --arch lenet5 --ratio 3x --method magnitude --no-retrain"  # more than a pipe holds
    for unbuffered in ("", "1"):
        done = shell(f"PYTHONUNBUFFERED={unbuffered} compress {large} -o - -q | head -c 10 > /dev/null")
        assert done.stderr == b""
        assert done.returncode == 1  # with pipefail: the model did not arrive


def test_what_is_not_ascii_reaches_an_ascii_terminal(shell: Any) -> None:
    done = shell("PYTHONIOENCODING=ascii LC_ALL=C compress prune model.pt -r 3x --dry-run")
    assert done.returncode == 0, done.stderr
    assert b"asked 3.00x" in done.stdout


def test_an_interrupt_keeps_the_resume_point_and_resume_goes_on(
    shell: Any, here: Path, environment: dict[str, str]
) -> None:
    options = [
        "--ratio",
        "2x",
        "--epochs",
        "100000",
        "--retrain-epochs",
        "1",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--rho",  # so small that the residual never ends the search before the interrupt does
        "1e-9",
        "--rho-growth",
        "1",
    ]
    command = [sys.executable, "-m", "compressor", "prune", "model.pt", *options, "-o", "p.pt"]
    process = subprocess.Popen(
        command,
        cwd=here,
        env=environment,
        stderr=subprocess.PIPE,
        # a test run in the background of a shell inherits an ignored SIGINT, and so would the command
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    point = here / "p.pt.resume"
    for _ in range(600):
        if point.exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    # Python ends by the signal itself, which a shell calls 130 too, where it was in an `exec` (as of a dataclass) when
    # the signal came, whoever caught the exception later.
    assert process.returncode in (130, -signal.SIGINT), told
    assert b"interrupted; the last finished epoch is in p.pt.resume" in told
    assert b"--resume" in told
    assert b"Traceback" not in told
    assert not (here / "p.pt").exists()
    again = shell("compress prune model.pt -r 2x -o p.pt")
    assert again.returncode == 2
    assert b"left by an interrupted run; continue with --resume" in again.stderr
    assert point.exists()
