"""Tables of measured times between and beyond their grid, and the grids themselves."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.cost import LatencyTable, width_grid

TABLE = LatencyTable((16, 32, 64), (8, 16), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 10.0]]))


@pytest.mark.parametrize(
    ("filters", "channels", "seconds"),
    [(16, 8, 1.0), (32, 16, 4.0), (24, 8, 2.0), (16, 12, 1.5), (48, 12, 5.5), (1, 1, 1.0), (99, 99, 10.0)],
)
def test_the_grid_is_met_and_filled_in_between(filters: int, channels: int, seconds: float) -> None:
    assert TABLE.at(filters, channels) == pytest.approx(seconds)


def test_many_widths_at_once() -> None:
    found = TABLE.at(np.array([16, 24, 99]), np.array([8, 8, 99]))
    assert found.tolist() == [1.0, 2.0, 10.0]


def test_a_table_of_one_width() -> None:
    depthwise = LatencyTable((4, 8), (1,), np.array([[1.0], [3.0]]))
    assert depthwise.at(6, 1) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("size", "multiple", "grid"),
    [(64, 16, (16, 32, 48, 64)), (1, 16, (1,)), (10, 16, (5, 10)), (256, 16, (16, 32, 48, 80, 144, 256))],
)
def test_a_grid_has_multiples_and_the_whole_width(size: int, multiple: int, grid: tuple[int, ...]) -> None:
    assert width_grid(size, multiple, 6) == grid


def test_a_width_that_is_no_multiple_ends_the_grid() -> None:
    *multiples, last = width_grid(100, 16, 6)
    assert last == 100 and all(n % 16 == 0 for n in multiples)
