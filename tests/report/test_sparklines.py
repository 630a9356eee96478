"""Block characters for numbers."""

from __future__ import annotations

import math

import pytest

from compressor.report.sparklines import bar, sparkline


def test_a_line_of_blocks_falls_with_its_numbers() -> None:
    assert sparkline([1.0, 0.9, 0.5, 0.0], 0.0, 1.0) == "██▅▁"
    assert sparkline([2.0, -1.0], 0.0, 1.0) == "█▁"
    assert sparkline([0.5, math.nan], 0.0, 1.0) == "▅·"
    assert sparkline([0.5, 0.5], 0.5, 0.5) == "██"


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0.0, ""), (0.0001, "▏"), (0.5, "██"), (0.53, "██▏"), (1.0, "████"), (7.0, "████"), (math.nan, "")],
)
def test_a_bar_has_eighths(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn
