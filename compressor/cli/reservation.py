"""Keeps a second run away from an output that a first one is still working for; it must never write a result.

The lock goes with the process that holds it, so a run that was killed blocks nobody.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import UsageError


@contextmanager
def reserved(point: Path | None, *, is_main: bool = True) -> Generator[None]:
    """Holds a resume point, and with it the output that it belongs to, while the block runs.

    Raises:  UsageError if another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: the resume point itself is still refused where it exists
        fcntl = None
    if point is None or not is_main or fcntl is None:
        yield
        return
    lock = point.with_name(point.name + ".lock")
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{point.with_suffix('')}: another run is working for this file; wait for it, or give another -o"
            ) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # while it is held: who opens it now finds a file of his own
    finally:
        os.close(descriptor)
