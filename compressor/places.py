"""Folders of the user's own, outside of any project; it must never make or read one.

A folder that is not named by an absolute path is none: the working directory may be a stranger's.
"""

from __future__ import annotations

import os
from pathlib import Path

_OWN = "compress"


def cache_folder() -> Path | None:
    """What may be deleted at any time: `compress` below $XDG_CACHE_HOME, by default ~/.cache; None without a home."""
    return _below("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path | None:
    """What is remembered from run to run: `compress` below $XDG_STATE_HOME, by default ~/.local/state."""
    return _below("XDG_STATE_HOME", ".local/state")


def _below(variable: str, default: str) -> Path | None:
    named = os.environ.get(variable, "")
    if os.path.isabs(named):
        return Path(named) / _OWN
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and a user that the system does not know
        return None
    return home / default / _OWN if home.is_absolute() else None
