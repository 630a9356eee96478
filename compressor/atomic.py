"""Writing a file so that it is there whole or not at all; it must never know what the file holds."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from compressor.errors import OutputError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says where there is no room for more."""
_LONGEST_NAME = 100
"""Characters of the target's name kept in the temporary one: file systems end at 255 bytes."""


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, force: bool = False) -> Generator[Path, None, None]:
    """A temporary path beside `path`: it becomes `path` when the block ends well, else it vanishes.

    The temporary file exists (empty) when the block starts and ends in the target's suffix. A new file has the mode
    that the umask asks for; one that is overwritten keeps its mode and, where the system lets us, its owner. A symbolic
    link is written through. Without `force` the target must not exist at the start nor at the end: of two runs side by
    side one gets the name, the other an error.

    Raises:  OutputError if the target exists and not `force`, is no regular file, its directory is missing or
             read-only, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    replaced = refuse_taken(target, force)
    temporary = _create_beside(target, 0o666 if replaced is None else 0o600)
    try:
        yield temporary
        _sync(temporary)
        if replaced is not None:
            _take_over(temporary, replaced)
        _publish(temporary, target, force)
    except OSError as error:
        if error.errno in FULL:
            raise OutputError(f"{target}: {error.strerror}; free some space or write elsewhere with -o") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(target.parent)


@contextmanager
def opened(temporary: Path) -> Generator[BinaryIO, None, None]:
    """The temporary file for writing. A write that the disk refused is told as that, whatever the writer made of it."""
    raw = _Recording(temporary, "w")
    try:
        with io.BufferedWriter(raw) as file:
            yield file
    except Exception:
        if raw.refused is not None:
            raise raw.refused from None
        raise


class _Recording(io.FileIO):
    """Keeps what a write raised: writers of other languages call back into this one and tell something of their own."""

    refused: OSError | None = None

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.refused = self.refused or error
            raise


def refuse_taken(target: Path, force: bool, option: str = "-o") -> os.stat_result | None:
    """What is there and would be overwritten, None where nothing is.

    Raises:  OutputError if it is no regular file, or there is one and not `force`; the message names `option`.
    """
    try:
        found = os.stat(target)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}; choose another path with {option}") from error
    if stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{target}: is a directory; give the name of a file with {option}")
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{target}: is a pipe or a device, not a file; choose another path with {option}")
    if not force:
        raise _exists(target, option)
    return found


def _exists(target: Path, option: str = "-o") -> OutputError:
    return OutputError(f"{target}: exists already; overwrite it with --force or choose another path with {option}")


def _create_beside(target: Path, mode: int) -> Path:
    token = f".{os.getpid()}-{secrets.token_hex(4)}.tmp-"
    temporary = target.with_name(token + target.name[-_LONGEST_NAME:])
    try:
        # 0o666 is what open() asks for: the kernel takes the umask off, which tempfile's 0o600 would hide.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OutputError(f"{target}: there is no directory {target.parent}; create it first") from error
    except OSError as error:
        raise OutputError(f"{target}: cannot write into {target.parent}: {error.strerror}") from error
    return temporary


def _take_over(temporary: Path, replaced: os.stat_result) -> None:
    """Mode and owner of the file that is replaced. Where its group cannot be kept, another group gets no rights."""
    mode = stat.S_IMODE(replaced.st_mode) & 0o777
    if hasattr(os, "chown"):
        own = temporary.stat()
        if (own.st_uid, own.st_gid) != (replaced.st_uid, replaced.st_gid):
            try:
                os.chown(temporary, replaced.st_uid, replaced.st_gid)
            except OSError:
                mode &= ~0o070 if own.st_gid != replaced.st_gid else 0o777
    temporary.chmod(mode)


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
        refuse_taken(target, force)
        os.replace(temporary, target)


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
