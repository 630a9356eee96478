"""Options that hold several numbers, as `1,2,4`; it must never know what the numbers are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compressor.errors import UsageError


def read_counts(flag: str) -> Callable[[Sequence[str]], tuple[int, ...]]:
    """A reader of what was said with `flag`: `["1,2", "4"]` -> (1, 2, 4), each number once.

    It raises UsageError if a part is not a number above 0.
    """

    def read(texts: Sequence[str]) -> tuple[int, ...]:
        parts = [part.strip() for text in texts for part in text.split(",")]
        wrong = [part for part in parts if not part.isdecimal() or int(part) < 1]
        if wrong:
            raise UsageError(f"{flag} {wrong[0] or ','}: write whole numbers above 0, as {flag} 1,2")
        return tuple(dict.fromkeys(int(part) for part in parts))

    return read


def check_counts(called: str, values: Sequence[int]) -> None:
    """Raises:  UsageError unless there is one number at least and each is 1 or more; it begins with `called`."""
    if not values or min(values) < 1:
        raise UsageError(f"{called} {','.join(map(str, values))}: give one or more numbers, each 1 or more")
