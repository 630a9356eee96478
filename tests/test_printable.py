"""Text that a terminal may be given."""

from __future__ import annotations

from compressor.printable import one_line, printable


def test_what_a_terminal_would_obey_becomes_a_mark() -> None:
    assert printable("a\x1b[2Jb\u202ec") == "a\ufffd[2Jb\ufffdc"
    assert printable("größe × 3") == "größe × 3"


def test_a_line_break_stays_only_where_there_are_lines() -> None:
    assert printable("a\nb") == "a\nb" and one_line("a\nb") == "a\ufffdb"
