"""Options that hold several numbers."""

from __future__ import annotations

import pytest

from compressor.cli.lists import read_counts
from compressor.errors import UsageError


def test_numbers_in_one_option_or_in_several() -> None:
    assert read_counts("--batch", ["1, 2", "4", "2"], (9,)) == (1, 2, 4)
    assert read_counts("--batch", None, (9,)) == read_counts("--batch", [], (9,)) == (9,)


@pytest.mark.parametrize(("text", "told"), [("0", "0"), ("1,x", "x"), ("-1", "-1"), ("1,,2", ","), ("1.5", "1.5")])
def test_what_is_no_number_above_zero_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=f"^--batch {told}: write whole numbers above 0, as --batch 1,2"):
        read_counts("--batch", [text], (1,))
