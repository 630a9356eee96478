"""Options that hold several numbers, as `1,2,4`; it must never know what the numbers are for."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.errors import UsageError


def read_counts(name: str, texts: Sequence[str] | None, default: tuple[int, ...]) -> tuple[int, ...]:
    """`["1,2", "4"]` -> (1, 2, 4), each number once; the default when nothing was given.

    Raises:  UsageError if a part is not a number above 0.
    """
    if not texts:
        return default
    parts = [part.strip() for text in texts for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or int(part) < 1]
    if wrong:
        raise UsageError(f"{name} {wrong[0] or ','}: write whole numbers above 0, as {name} 1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))
