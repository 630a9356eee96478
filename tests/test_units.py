"""Times as users write them, and quantities as text; ratios are tested where they are asked for."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import UsageError
from compressor.units import format_bytes, format_dtype, format_fewer, format_macs, format_seconds, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), (" 5m ", 300.0), ("1.5h", 5400.0), ("0.5 s", 0.5)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "5 min", "1e400", "inf"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a time; write it as 90s, 5m or"):
        parse_duration(text)


def test_how_many_times_less_is_left() -> None:
    assert format_fewer(39.0, 3.0) == "13.0x" and format_fewer(3, 2) == "1.50x"
    assert format_fewer(3, 0, "gone") == "gone" and format_fewer(None, 2) == "" and format_fewer(2, None) == ""


def test_types_are_named_without_their_module() -> None:
    assert format_dtype(torch.bfloat16) == "bfloat16" and format_dtype("float32") == "float32"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (format_bytes(1023), "1023 B"),
        (format_bytes(1_023_900), "1000 KiB"),
        (format_bytes(1_048_500), "1 MiB"),
        (format_bytes(1023 << 20), "1023 MiB"),
        (format_bytes(5000 << 40), "5000 TiB"),
        (format_macs(999), "999"),
        (format_macs(999_400), "999 k"),
        (format_macs(999_700), "1 M"),
        (format_seconds(0.9999), "1 s"),
        (format_seconds(12345.6), "12346 s"),
        (format_seconds(9.9996e-4), "1 ms"),
    ],
)
def test_no_size_is_shown_with_an_exponent(shown: str, expected: str) -> None:
    assert shown == expected
