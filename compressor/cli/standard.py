"""The three standard streams, as the system hands them over: closed, full, or without a reader.

Standard output belongs to the result: what a network's own code prints goes to standard error, or a pipe would take it
for a part of the result. It must never hold what is written to them.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from compressor.errors import OutputError, UsageError

_kept: ContextVar[TextIO | None] = ContextVar("standard output, while others write to standard error", default=None)


@contextmanager
def for_the_result() -> Generator[None]:
    """In the block whatever prints does so to standard error; `writing_result` alone writes to standard output."""
    token = _kept.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.reset(token)


def output() -> TextIO:
    """Standard output itself."""
    return _kept.get() or sys.stdout


def open_closed() -> None:
    """Opens nothing in the place of a stream that was closed, so that no file opened later takes its number.

    Raises:  UsageError where that is standard output: the result of hours would be lost.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        descriptor = os.open(os.devnull, os.O_RDWR)
        setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w"))
    if "stdout" in closed:
        raise UsageError("standard output is closed; to do without the result, send it to /dev/null")


@contextmanager
def writing_result() -> Generator[None]:
    """What is written to standard output in the block is there when it ends.

    Raises:  OutputError if it takes nothing; BrokenPipeError, as it is, if its reader has gone.
    """
    try:
        with contextlib.redirect_stdout(output()):
            yield
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop()
        raise OutputError(f"standard output: {error.strerror}; the result could not be written") from error


def flush() -> None:
    """Raises:  as `writing_result`."""
    with writing_result():
        pass


def drop() -> None:
    """Standard output leads nowhere from now on, so that nothing is flushed in vain when the process ends."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output().fileno())
