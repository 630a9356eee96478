"""Text as a terminal may be given it; it must never know where the text is from or where it goes."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text without what a terminal would obey: names and notes in a file may come from a stranger.

    Controls, escapes and the marks that turn the direction of writing around become `\ufffd`; a line break stays.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def one_line(text: str) -> str:
    """The same for a place that has one line: a break in a name must not begin a line of its own."""
    return printable(text).replace("\n", "\ufffd")
