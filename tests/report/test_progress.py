"""Bars and lines."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from compressor.progress import Silent
from compressor.report.progress import Lines, open_progress

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_line_per_finished_stage() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Lines(stream, clock)
    progress.start("admm", 10, "step")
    for _ in range(10):
        progress.advance(loss=0.5)
    clock.now_s = 12.5
    progress.finish("admm", accuracy=0.9812, residual=0.01)
    assert stream.getvalue() == "admm: done in 12.5 s, accuracy 98.12 %, residual 0.01\n"


def test_one_line_every_half_minute_in_between() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Lines(stream, clock)
    progress.start("retrain", 4000, "step")
    for step in range(1, 101):
        clock.now_s = step * 1.0
        progress.advance(10, loss=1 / step)
    told = stream.getvalue().splitlines()
    assert len(told) == 3
    assert told[0] == "retrain: step 300 of 4,000 (7 %), loss 0.03333, 30.0 s so far, about 6 min 10 s left"


def test_an_unknown_total_and_no_step_yet_divide_nothing_by_zero() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Lines(stream, clock)
    progress.start("scan", 0, "layer")
    clock.now_s = 31.0
    progress.advance(0)
    assert stream.getvalue() == "scan: layer 0 of 0, 31.0 s so far, about 0.00 s left\n"


def test_a_note_is_told_at_once() -> None:
    stream = io.StringIO()
    Lines(stream).note("resumed from a.resume")
    assert stream.getvalue() == "note: resumed from a.resume\n"


def test_a_terminal_gets_bars_and_a_line_per_stage(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with open_progress(stream) as progress:
        progress.start("admm [1]", 3, "step")
        progress.advance(loss=0.5)
        progress.note("a [note]")
        progress.finish("admm [1]", accuracy=0.5)
        progress.advance()  # after the end: nothing to move
    assert "admm [1]: done in" in stream.getvalue()
    assert "accuracy 50.00 %" in stream.getvalue()
    assert "note: a [note]" in stream.getvalue()


def test_a_bar_has_count_and_time_left_first_and_values_cut_where_the_terminal_ends(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with open_progress(stream) as progress:
        progress.start("admm", 12, "step")
        progress.advance(loss=0.5, distance=0.25, learning_rate=0.001, agreement=0.99)
        progress.note("a line makes the bar be drawn anew, whatever its clock says")
    bars = [line for line in re.split(r"[\r\n]+", ESCAPES.sub("", stream.getvalue())) if "1/12 step" in line]
    assert bars and all(len(line.rstrip()) == 80 for line in bars), bars
    assert all(re.search(r"^admm [━╸]+ +1/12 step +(\d+:)*(\d\d|--:--) +loss 0.5, .*…$", line) for line in bars), bars


def test_the_terminal_is_given_back_when_the_work_fails(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with pytest.raises(ValueError, match="in the middle"), open_progress(stream) as progress:
        progress.start("admm", 3, "step")
        raise ValueError("in the middle")
    assert stream.getvalue().rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue()


def test_silent_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Silent()
    progress.start("a", 1, "step")
    progress.advance(loss=1.0)
    progress.finish("a")
    progress.note("x")
    assert capsys.readouterr() == ("", "")
