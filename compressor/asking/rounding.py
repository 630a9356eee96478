"""`--round-to`: a multiple that widths keep, or the word for one that is measured; it must never measure."""

from __future__ import annotations

from compressor.errors import UsageError

MEASURED = 0
"""The multiple that stands for `auto`."""


def read_multiple(text: str) -> int:
    """N of --round-to, `MEASURED` for `auto`.

    Raises:  UsageError if it is neither.
    """
    if text == "auto":
        return MEASURED
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--round-to {text}: a whole number from 1, or auto for the multiple that is measured")
    return int(text)
