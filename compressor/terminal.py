"""What a stream can show: colours, a cursor that moves, so many columns; it must never hold what is shown.

NO_COLOR (https://no-color.org) and TERM=dumb are obeyed here and nowhere else.
"""

from __future__ import annotations

import os
from typing import TextIO

_COLOURS = {"red": 31, "yellow": 33}
_DUMB = ("dumb", "unknown")


def is_movable(stream: TextIO) -> bool:
    """Whether it is a terminal on which a line can be written over."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in _DUMB


def is_coloured(stream: TextIO) -> bool:
    """Whether it is a terminal that shows colours, and its user wants them."""
    return is_movable(stream) and not os.environ.get("NO_COLOR")


def prefix(word: str, colour: str, stream: TextIO) -> str:
    """`note:` in its colour, where the stream has any."""
    return f"\x1b[{_COLOURS[colour]}m{word}\x1b[0m" if is_coloured(stream) else word
