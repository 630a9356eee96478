"""A configuration file as it is on the disk: found or named, whose it is, its bytes; it must never read an option.

Its bytes are read once. What is hashed, what is looked for in the list of allowed files and what is used are the same.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import ConfigError
from compressor.regular import open_regular

FILE_NAME = "compress.toml"
PROJECT_NAME = "pyproject.toml"
_OWN_TABLE = re.compile(rb"^\s*\[tool\.compress[\].]", re.MULTILINE)
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class ConfigFile:
    """One file. `found`: come upon, not named with --config. `owner` is None where users have no numbers."""

    path: Path
    content: bytes
    found: bool
    owner: int | None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def is_foreign(self) -> bool:
        return is_foreign(self.owner)


def is_foreign(owner: int | None) -> bool:
    """Whether that is another user; the system's own files are nobody else's."""
    return owner is not None and owner not in (0, os.geteuid())


def owner_of(path: Path) -> int | None:
    """The user that a path belongs to; of a symbolic link that leads to somebody's file, whoever is foreign.

    Raises:  OSError if it is not there.
    """
    return _owner(path, os.stat(path))


def _owner(path: Path, found: os.stat_result) -> int | None:
    if not hasattr(os, "geteuid"):
        return None
    link = os.lstat(path).st_uid
    return link if is_foreign(link) else found.st_uid


def find_config(start: Path) -> ConfigFile | None:
    """The nearest compress.toml, or pyproject.toml with a [tool.compress], from `start` upwards."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return open_config(folder / FILE_NAME, found=True)
        project = folder / PROJECT_NAME
        if project.is_file():
            file = open_config(project, found=True)
            if _OWN_TABLE.search(file.content):
                return file
    return None


def open_config(path: Path, *, found: bool) -> ConfigFile:
    """The file as it is now.

    Raises:  ConfigError if it cannot be read or is too large for what it is.
    """
    try:
        with open_regular(path, ConfigError) as file:
            content, owner = file.read(_MOST_BYTES + 1), _owner(path, os.fstat(file.fileno()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{path}: is larger than 1 MiB, too large for a configuration file")
    return ConfigFile(Path(os.path.abspath(path)), content, found, owner)
