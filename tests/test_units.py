"""Times as users write them; ratios are tested where they are asked for."""

from __future__ import annotations

import pytest

from compressor.errors import UsageError
from compressor.units import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), (" 5m ", 300.0), ("1.5h", 5400.0), ("0.5 s", 0.5)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "5 min", "1e400", "inf"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a time; write it as 90s, 5m or"):
        parse_duration(text)
