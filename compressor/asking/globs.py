"""Options that speak about single layers by name, as `conv*=0.5`; it must never know what the number is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compressor.errors import UsageError
from compressor.units import parse_share

Pairs = tuple[tuple[str, float], ...]


def read_globs(name: str, example: str, *, alone: str | None = None) -> Callable[[Sequence[str]], Pairs]:
    """What reads the texts of one option as pairs: see `glob_values`."""
    return lambda texts: glob_values(texts, name, example, alone=alone)


def glob_values(texts: Sequence[str], name: str, example: str, *, alone: str | None = None) -> Pairs:
    """`conv1=1e-2` -> ("conv1", 0.01); a bare number is for the glob `alone`, where there is one.

    Raises:  UsageError for text that is no such pair; it names the option and shows `example`.
    """
    found: list[tuple[str, float]] = []
    for text in texts:
        glob, equals, value = text.rpartition("=")
        if not equals and alone is not None:
            glob = alone
        try:
            found.append((glob, parse_share(value, name)))
        except UsageError:
            glob = ""
        if not glob:
            raise UsageError(f"{name} {text}: write it as {example}")
    return tuple(found)
