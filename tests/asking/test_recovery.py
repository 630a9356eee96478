"""What heals a cut, as checked values."""

from __future__ import annotations

import pytest

from compressor.asking.recovery import Recovery
from compressor.errors import UsageError


def test_it_is_true_where_there_is_something_to_do() -> None:
    assert not Recovery() and Recovery(reconstruct=1) and Recovery(recalibrate=1)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"reconstruct": -1}, "--reconstruct -1: must be at least 0"),
        ({"recalibrate": 1.5}, "--recalibrate 1.5: must be a whole number"),
        ({"ridge": 0.0}, "--ridge 0: must be above 0"),
    ],
)
def test_values_out_of_range_are_refused(said: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recovery(**said)  # type: ignore[arg-type]
