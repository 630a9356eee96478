"""A stretch of work on a stranger's file in which no process is started and nothing goes over the network.

Libraries choose what handles a file by what stands in it: an image can bring an interpreter, a configuration a
download. Whatever they choose, Python tells it to an audit hook before it is done (PEP 578), and there it ends. It must
never know which library is at work. A hook cannot be taken out again; outside of a sealed block it looks at nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from compressor.errors import UnsafeFileError

_PROCESSES = ("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.startfile", "pty.")
_NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "telnetlib.", "nntplib.")
"""Beginnings of the names of audit events; a socket that is only made harms nobody, and is told by none of its own."""

_sealed = threading.local()
_installing = threading.Lock()
_installed: list[bool] = []


@contextmanager
def sealed(name: str) -> Generator[None, None, None]:
    """What runs in the block, in this thread, may compute and read; `name` is the file that it is about.

    Raises:  UnsafeFileError at the first attempt to do more, through whatever called it.
    """
    _install()
    before = getattr(_sealed, "name", None)
    _sealed.name = name
    try:
        yield
    finally:
        _sealed.name = before


def _install() -> None:
    with _installing:
        if not _installed:
            sys.addaudithook(_refuse)
            _installed.append(True)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    name = getattr(_sealed, "name", None)
    if name is None:
        return
    if event.startswith(_PROCESSES):
        raise UnsafeFileError(f"{name}: opening it would start another program ({_shown(arguments)}); it is refused")
    if event.startswith(_NETWORK) and event != "socket.__new__":
        raise UnsafeFileError(
            f"{name}: opening it would go to the network ({event}); nothing is downloaded here,\n"
            "fetch what it needs beforehand"
        )


def _shown(arguments: tuple[Any, ...]) -> str:
    return ascii(arguments[0])[:60] if arguments else "unknown"
