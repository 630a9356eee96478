"""Masks of whole units as a file has them: what does not fit its tensors is refused, whatever is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.errors import ModelError
from compressor.formats.positions import flat_positions, read_positions, stored_positions, with_positions
from compressor.program.masks import Positions, UnitMasks

TENSORS = {"w": torch.zeros(3, 4), "b": torch.zeros(3)}
ROWS, COLUMNS = torch.tensor([True, False, True]), torch.tensor([True, True, False, False])


def masks() -> UnitMasks:
    return UnitMasks({"w": Positions((3, 4), {0: ROWS, 1: COLUMNS})}, {"b": ROWS})


def test_what_is_stored_is_read_as_the_same_masks() -> None:
    stored = stored_positions(masks())
    assert list(flat_positions(stored)) == ["w along 0", "w along 1"]
    found = with_positions({"b": ROWS}, read_positions(stored, TENSORS), TENSORS)
    assert isinstance(found, UnitMasks) and list(found.positions) == ["w"]
    assert torch.equal(found["w"], ROWS[:, None] & COLUMNS) and torch.equal(found["b"], ROWS)


def test_masks_of_single_weights_are_no_positions() -> None:
    dense = {"b": ROWS}
    assert stored_positions(dense) == {} and with_positions(dense, {}, TENSORS) is dense


@pytest.mark.parametrize(
    "content",
    [
        None,
        [("w", {"0": ROWS})],
        {"v": {"0": ROWS}},
        {1: {"0": ROWS}},
        {"w": {}},
        {"w": ROWS},
        {"w": {0: ROWS}},
        {"w": {"2": ROWS}},
        {"w": {"-1": COLUMNS}},
        {"w": {"²": ROWS}},
        {"w": {"0": COLUMNS}},
        {"w": {"0": ROWS.float()}},
        {"w": {"0": ROWS[None]}},
        {"w": {"0": [True, False, True]}},
        {"w": {"0": None}},
        {"w": {"0": ROWS.to_sparse()}},
    ],
)
def test_what_does_not_fit_is_refused(content: Any) -> None:
    with pytest.raises(ModelError):
        read_positions(content, TENSORS)


def test_positions_are_of_parameters_that_have_no_other_mask() -> None:
    positions = {"w": {"0": ROWS}}
    parameters: dict[str, Tensor] = {"b": TENSORS["b"]}
    with pytest.raises(ModelError, match="w, which has a mask too or is no parameter"):
        with_positions({}, positions, parameters)
    with pytest.raises(ModelError, match="w, which has a mask too or is no parameter"):
        with_positions({"w": torch.ones(3, 4, dtype=torch.bool)}, positions, TENSORS)
