"""What a library raised, in one line."""

from __future__ import annotations

import pytest

from compressor.errors import first_line, named_line


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("one", "one", "ValueError: one"),
        ("\n\n  two  \nthree", "two", "ValueError: two"),
        ("", "ValueError", "ValueError"),
        (" \n ", "ValueError", "ValueError"),
    ],
)
def test_the_first_line_that_says_anything(text: str, line: str, named: str) -> None:
    assert first_line(ValueError(text)) == line
    assert named_line(ValueError(text)) == named


def test_a_long_line_is_cut() -> None:
    assert first_line(ValueError("x" * 500)) == "x" * 200
    assert named_line(ValueError("x" * 500), 3) == "ValueError: xxx"
