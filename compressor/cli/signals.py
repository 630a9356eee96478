"""SIGTERM and SIGHUP end a run as Ctrl-C does: blocks are left in order, so that temporary files and locks go.

By default either ends the process at once, with a whole model in a temporary folder. It must never hold what is told.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, NoReturn

_NAMES = ("SIGTERM", "SIGHUP")
EXIT_CODES = tuple(128 + getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""What a shell would say of a process that the signal ended."""


class Terminated(BaseException):
    """Somebody ended the run; no `except Exception` on the way may hold it up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


_AGAIN_S = 0.05


def end_in_order() -> None:
    """From now on both are raised in the main thread. One that is ignored stays so: nohup asks for that.

    Python drops an exception that comes up while it tidies a value away (`__del__`, callbacks of weak references); the
    end of a run, or Ctrl-C, that met with that is raised again.
    """
    for number in _numbers():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    if hasattr(signal, "setitimer"):
        sys.unraisablehook = _raise_again


def _raise_again(dropped: sys.UnraisableHookArgs) -> None:
    error = dropped.exc_value
    if not isinstance(error, (Terminated, KeyboardInterrupt)):
        sys.__unraisablehook__(dropped)
        return

    def once_more(*_: Any) -> NoReturn:
        raise error

    signal.signal(signal.SIGALRM, once_more)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    for other in _numbers():  # the second one must not break off the clearing up; kill -9 still can
        signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)


def _numbers() -> list[int]:
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
