"""The multiple that widths keep, read from text."""

from __future__ import annotations

import pytest

from compressor.asking.rounding import MEASURED, read_multiple
from compressor.errors import UsageError


def test_a_number_or_the_word_for_one_that_is_measured() -> None:
    assert (read_multiple("8"), read_multiple("auto")) == (8, MEASURED)


@pytest.mark.parametrize("text", ["0", "-8", "1.5", "eight", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a whole number from 1, or auto"):
        read_multiple(text)
