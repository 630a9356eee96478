"""The configuration files that the user lets name code; it must never hold what they say, nor allow one by itself.

One small file for each, named after its path: `SHA-256  PATH`, as sha256sum writes it. Whoever deletes it takes the
leave back.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from compressor.cli.config_file import ConfigFile
from compressor.errors import OutputError
from compressor.places import state_folder

_FOLDER = "allowed"


def is_allowed(file: ConfigFile) -> bool:
    """Whether this very content was allowed at this very place. What cannot be read was not."""
    return _remembered(file) == _entry(file)


def was_allowed(file: ConfigFile) -> bool:
    """Whether the place is known, be it with another content."""
    return _remembered(file) is not None


def allow(file: ConfigFile) -> None:
    """From now on, until it changes.

    Raises:  OutputError if that cannot be remembered.
    """
    from compressor.atomic import atomic_write

    place = _place(file)
    if place is None:
        raise OutputError("there is no home directory to remember it in")
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_write(place, force=True) as temporary:
            temporary.chmod(0o600)
            temporary.write_bytes(_entry(file))
    except OSError as error:
        raise OutputError(f"{place.parent}: {error.strerror}") from error


def _entry(file: ConfigFile) -> bytes:
    return f"{file.sha256}  ".encode() + os.fsencode(file.path) + b"\n"


def _place(file: ConfigFile) -> Path | None:
    state = state_folder()
    name = hashlib.sha256(os.fsencode(file.path)).hexdigest()
    return None if state is None else state / _FOLDER / name


def _remembered(file: ConfigFile) -> bytes | None:
    """What is noted for the place. A note that somebody else could have written counts for nothing."""
    place = _place(file)
    try:
        if place is None or not _is_mine_alone(place.parent) or not _is_mine_alone(place):
            return None
        return place.read_bytes()
    except OSError:
        return None


def _is_mine_alone(path: Path) -> bool:
    if not hasattr(os, "geteuid"):
        return path.exists()
    found = os.lstat(path)
    plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return plain and found.st_uid == os.geteuid() and not found.st_mode & 0o022
