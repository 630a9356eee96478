"""By what a run that goes on knows its data and its task."""

from __future__ import annotations

import torch

from compressor.data import open_task
from compressor.data.arrays import Arrays, ArraySource
from compressor.data.identity import identity_of_data, identity_of_task


def source(first: float, ref: str = "one") -> ArraySource:
    arrays = Arrays(torch.full((4, 3), first), torch.zeros(4).long())
    return ArraySource(ref, arrays, arrays, 2)


def test_data_are_known_by_what_they_hold_and_not_by_where_they_lie() -> None:
    assert identity_of_data(source(1.0)) == identity_of_data(source(1.0, "two"))
    assert identity_of_data(source(1.0)) != identity_of_data(source(2.0))


def test_a_task_is_known_by_name_and_code() -> None:
    class Other(type(open_task(None))):  # type: ignore[misc]
        name = "other"

    assert identity_of_task(open_task(None)) == identity_of_task(open_task(None)) != identity_of_task(Other())
