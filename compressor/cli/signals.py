"""SIGTERM and SIGHUP end a run as Ctrl-C does: blocks are left in order, so that temporary files and locks go.

By default either ends the process at once, with a whole model in a temporary folder. It must never hold what is told.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

_NAMES = ("SIGTERM", "SIGHUP")
EXIT_CODES = tuple(128 + getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""What a shell would say of a process that the signal ended."""


class Terminated(BaseException):
    """Somebody ended the run; no `except Exception` on the way may hold it up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def end_in_order() -> None:
    """From now on both are raised in the main thread, once. One that is ignored stays so: nohup asks for that."""
    for number in _numbers():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    for other in _numbers():  # the second one must not break off the clearing up; kill -9 still can
        signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)


def _numbers() -> list[int]:
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
