"""A terminal of 80 columns and 24 lines: bars that fit, prose that is broken at words, colours only where wanted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
COMMAND = (
    "prune", "model.pt", "-r", "1.5x", "--epochs", "2", "--retrain-epochs", "2", "--no-latency", "--force",
    "--batch-size", "2",
)  # fmt: skip


def on_a_terminal(here: Path, environment: dict[str, str], *words: str, columns: int = 80, **more: str) -> str:
    """All that a command writes to a terminal of that size, both streams."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    lean = {name: value for name, value in environment.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "compressor", *words], cwd=here, env={**lean, "TERM": "xterm-256color", **more},
        stdin=follower, stdout=follower, stderr=follower, close_fds=True,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], 120)[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert process.wait(timeout=60) == 0, shown.decode()
    return shown.decode()


def lines_of(shown: str) -> list[str]:
    """What stood on the terminal, line by line, with what was written over."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", ESCAPES.sub("", shown)) if line.strip()]


@pytest.fixture
def shown(here: Path, environment: dict[str, str]) -> str:
    return on_a_terminal(here, environment, *COMMAND)


def test_bars_fit_and_a_line_stands_before_seconds_of_silence(shown: str) -> None:
    """What a bar holds at which moment is `tests/report/test_progress.py`: here it is drawn when its time comes."""
    bars = [line for line in lines_of(shown) if re.search(r"━.*\d+/\d+ +step", line)]
    assert bars, shown
    assert all(len(line) <= 80 for line in bars)
    assert "loading PyTorch" in lines_of(shown)[0], "a line before seconds of silence"


def test_prose_is_broken_at_words(here: Path, environment: dict[str, str]) -> None:
    shown = on_a_terminal(here, environment, "prune", "model.pt", "-r", "1.5x", "-n", "--no-latency")
    prose = [line for line in lines_of(shown) if line.startswith(("dry run", "parameters"))]
    assert len(prose) == 2 and all(len(line) <= 80 for line in prose), prose
    words = {word for line in lines_of(shown) for word in line.split()}
    assert {"parameters", "compacted", "otherwise"} <= words


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
@pytest.mark.parametrize("words", [("analyze", "init", "--arch", "lenet5"), COMMAND], ids=["note", "progress"])
def test_no_colour_where_none_is_wanted(
    here: Path, environment: dict[str, str], words: tuple[str, ...], variables: dict[str, str]
) -> None:
    shown = on_a_terminal(here, environment, *words, **variables)
    assert not COLOURS.search(shown.replace("\x1b[0m", ""))
    if variables.get("TERM") == "dumb":
        assert "\x1b" not in shown and "\r" not in shown.replace("\r\n", "")


def test_twin_there_is_colour_otherwise(here: Path, environment: dict[str, str]) -> None:
    assert COLOURS.search(on_a_terminal(here, environment, "analyze", "init", "--arch", "lenet5"))
