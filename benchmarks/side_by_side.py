"""Commands in processes of their own, several at a time and within a time; it must never know what they measure.

One that fails or runs out of time is told of and takes nothing else with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]
_TAIL = 4000


@dataclass(frozen=True)
class Job:
    """A command under a name; `seconds` is the longest it may take, None for as long as there is."""

    name: str
    command: tuple[str, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a job ended, and the end of what it said."""

    name: str
    how: Literal["done", "failed", "out of time", "not begun"]
    seconds: float
    said: str


def side_by_side(
    jobs: Sequence[Job], logs: Path, *, processes: int, seconds: float | None = None,
    environment: Mapping[str, str] | None = None, on_end: Callable[[Ended], None] | None = None,
) -> list[Ended]:  # fmt: skip
    """How each job ended, in the order of the jobs; `logs` keeps all that those said that were not done."""
    logs.mkdir(parents=True, exist_ok=True)
    until = None if seconds is None else time.monotonic() + seconds
    with ThreadPoolExecutor(max(processes, 1)) as pool:
        running = {pool.submit(_run, job, logs, until, dict(environment or {})): job.name for job in jobs}
        for future in as_completed(running):
            if on_end is not None:
                on_end(future.result())
        ended = {name: future.result() for future, name in running.items()}
    return [ended[job.name] for job in jobs]


def _run(job: Job, logs: Path, until: float | None, environment: dict[str, str]) -> Ended:
    began = time.monotonic()
    left = [limit for limit in (job.seconds, None if until is None else until - began) if limit is not None]
    if left and min(left) <= 0:
        return Ended(job.name, "not begun", 0.0, "")
    log = logs / f"{job.name}.log"
    with log.open("wb") as file:
        # In a session of its own, so that what it started itself ends with it.
        process = subprocess.Popen(
            job.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | environment, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(min(left) if left else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    how = "out of time" if code is None else "done" if code == 0 else "failed"
    said = log.read_text(errors="replace")[-_TAIL:]
    if how == "done":
        log.unlink()
    return Ended(job.name, how, round(time.monotonic() - began, 1), said)


def append_line(path: Path, line: Mapping[str, object]) -> None:
    """One more line of a file that several processes write: in a single call, so that none is torn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file of one a line, none where there is no file; what a machine that died left unfinished is left
    out."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
