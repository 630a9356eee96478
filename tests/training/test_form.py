"""The form of a state out of a file."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.errors import TrainingError
from compressor.training.form import check_form, plain_as

OWN = {"w": torch.zeros(2, 3), "n": 1, "share": 0.5, "names": ["a", "b"]}


def test_the_same_form_with_other_values_is_taken() -> None:
    form = {"w": torch.ones(2, 3), "n": 7, "share": 1, "names": ["x", "y"]}
    assert check_form(form, OWN, "fit") is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"w": torch.ones(3, 2)}, r"fit\.w is torch\.float32 \[3, 2\]"),
        ({"w": torch.ones(2, 3).double()}, r"fit\.w is torch\.float64"),
        ({"w": 3}, r"fit\.w is int, where a tensor should be"),
        ({"n": "7"}, r"fit\.n is str, and int in this run"),
        ({"names": ["x"]}, r"fit\.names is no list of 2 values"),
        ({"more": 1}, r"fit has or lacks 'more'"),
    ],
)
def test_another_form_is_refused_where_it_differs(change: dict[str, Any], told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        check_form({**OWN, **change}, OWN, "fit")


def test_a_value_that_is_not_plain_is_refused_with_advice() -> None:
    assert plain_as(int, 3, "steps") == 3
    with pytest.raises(TrainingError, match=r"(?s)resume point: steps cannot be read.*start again without --resume"):
        plain_as(int, "3", "steps")
