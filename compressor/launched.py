"""What launchers of several processes (torchrun, accelerate) say in the environment; it must never import torch."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process is the one that speaks and writes files: the first of all, or alone."""
    return os.environ.get("RANK", "0") == "0"
