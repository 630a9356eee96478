"""What a program remembers, and what of it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from compressor.errors import ModelError
from compressor.program.record import Record, Step

FULL = Record(arch="lenet5", dense_params=10, kept={"fc.weight": {"1": [0, 2]}}).after(Step("prune", {"ratio": "2x"}))


def test_it_comes_back_from_json() -> None:
    assert Record.from_mapping(json.loads(json.dumps(FULL.to_mapping()))) == FULL
    assert Record.from_mapping({**FULL.to_mapping(), "newer": 1}) == FULL


@pytest.mark.parametrize("entry", [{"steps": 3}, {"dense_params": -1}, {"dense_macs": 1.5}, [], None])
def test_what_is_no_record_is_refused(entry: Any) -> None:
    with pytest.raises(ModelError, match="the checkpoint's history"):
        Record.from_mapping(entry)


def test_positions_of_an_axis_are_those_that_were_kept() -> None:
    assert FULL.kept_along("fc.weight", 1, 2) == [0, 2] and FULL.kept_along("fc.weight", 0, 3) == [0, 1, 2]
    with pytest.raises(ModelError, match="2 positions are remembered along axis 1, which has 3"):
        FULL.kept_along("fc.weight", 1, 3)
