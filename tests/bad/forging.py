"""What bad files are made with, and the rules that every refusal keeps; it holds no tests and no fixtures."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

HANG_S = 60
"""A guard against loops without end, not a measurement: a case takes milliseconds."""

DELETE = object()
"""Stands for taking an entry away."""


def saved(value: Any, **options: Any) -> bytes:
    """What torch.save writes of the value."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def check_message(text: str) -> None:
    """At most three lines that a terminal can show, none of them a trace."""
    lines = text.split("\n")
    assert 1 <= len(lines) <= 3, f"{len(lines)} lines: {text}"
    assert all(line and len(line) < 700 and line.isprintable() for line in lines), f"not for a terminal: {text}"
    assert "Traceback" not in text and 'File "' not in text, f"a trace: {text}"


@contextmanager
def no_hang() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still busy after {HANG_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
