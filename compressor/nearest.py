"""What somebody may have meant who wrote a name that is not there; it must never know what the names are for."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_FAR = 0.25
"""A name that is this much less alike than the nearest one is no help beside it."""


def nearest(word: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.5) -> tuple[str, ...]:
    """Names like `word`, the likest first; none where all are less alike than `cutoff`, from 0 to 1."""
    alike = {name: _alikeness(word, name) for name in known}
    best = max(alike.values(), default=0.0)
    near = [name for name, share in alike.items() if share >= max(cutoff, best - _FAR)]
    return tuple(sorted(near, key=lambda name: (-alike[name], name))[:most])


def did_you_mean(word: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.5) -> str | None:
    """`did you mean --ratio or --patience?`, the likest first; None where nothing is like it."""
    near = nearest(word, known, most=most, cutoff=cutoff)
    if not near:
        return None
    *others, last = near
    first = ", ".join(others) + " or " if others else ""
    return f"did you mean {first}{last}?"


def _alikeness(word: str, name: str) -> float:
    """1 for the same but for case, dashes and underscores."""
    plain = (text.lower().lstrip("-").replace("_", "-") for text in (name, word))
    return SequenceMatcher(None, *plain, autojunk=False).ratio()
