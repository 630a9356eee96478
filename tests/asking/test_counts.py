"""Options that hold several numbers."""

from __future__ import annotations

import pytest

from compressor.asking.counts import check_counts, read_counts
from compressor.errors import UsageError


def test_numbers_in_one_option_or_in_several() -> None:
    assert read_counts("--batch")(["1, 2", "4", "2"]) == (1, 2, 4)


@pytest.mark.parametrize(("text", "told"), [("0", "0"), ("1,x", "x"), ("-1", "-1"), ("1,,2", ","), ("1.5", "1.5")])
def test_what_is_no_number_above_zero_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=f"^--batch {told}: write whole numbers above 0, as --batch 1,2"):
        read_counts("--batch")([text])


@pytest.mark.parametrize("values", [(), (0,), (1, -1)])
def test_numbers_from_python_are_held_to_the_same(values: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="give one or more numbers, each 1 or more"):
        check_counts("--batch", values)
