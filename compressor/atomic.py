"""Writing a file so that it is there whole or not at all; it must never know what the file holds."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LONGEST_NAME = 100
"""Characters of the target's name kept in the temporary one: file systems end at 255 bytes."""


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`: it becomes `path` when the block ends well, else it vanishes.

    The temporary file exists (empty) when the block starts, has the mode that the umask asks for and ends in
    the target's suffix. A symbolic link is written through. Without `force` the target must not exist at the
    start nor at the end: of two runs side by side one gets the name, the other an error.

    Raises:  OutputError if the target exists and not `force`, is no regular file, its directory is missing or
             read-only, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    _refuse(target, force)
    temporary = _create_beside(target)
    try:
        yield temporary
        _sync(temporary)
        _publish(temporary, target, force)
    except OSError as error:
        if error.errno in _FULL:
            raise OutputError(f"{target}: {error.strerror}; free some space or write elsewhere with -o") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(target.parent)


def _refuse(target: Path, force: bool) -> None:
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}; choose another path with -o") from error
    if not stat.S_ISREG(mode):
        raise OutputError(f"{target}: is a directory or a device, not a file; choose another path with -o")
    if not force:
        raise _exists(target)


def _exists(target: Path) -> OutputError:
    return OutputError(f"{target}: exists already; overwrite it with --force or choose another path with -o")


def _create_beside(target: Path) -> Path:
    token = f".{os.getpid()}-{secrets.token_hex(4)}.tmp-"
    temporary = target.with_name(token + target.name[-_LONGEST_NAME:])
    try:
        # 0o666 is what open() asks for: the kernel takes the umask off, which tempfile's 0o600 would hide.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OutputError(f"{target}: there is no directory {target.parent}; create it first") from error
    except OSError as error:
        raise OutputError(f"{target}: cannot write into {target.parent}: {error.strerror}") from error
    return temporary


def _sync(temporary: Path) -> None:
    try:
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
    except FileNotFoundError as error:
        raise OutputError(f"{temporary}: went away while it was written; run the command again") from error


def _publish(temporary: Path, target: Path, force: bool) -> None:
    if force:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # unlike a rename, a link fails when the name was taken meanwhile
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError:  # a file system without hard links: look, then rename
        _refuse(target, force)
        os.replace(temporary, target)


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
