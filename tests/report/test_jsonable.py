"""Results as JSON."""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.asking import parse_pattern
from compressor.report.jsonable import plain, to_json


class Colour(enum.Enum):
    DARK_RED = "a hint that is longer than a name"


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    metrics: dict[str, float]
    path: Path
    colour: Colour


def test_nested_dataclasses_become_dicts_and_lists() -> None:
    found = plain(Outer(Inner((1, 2)), {"loss": 0.5}, Path("a/b"), Colour.DARK_RED))
    assert found == {
        "inner": {"sizes": [1, 2]},
        "metrics": {"loss": 0.5},
        "path": "a/b",
        "colour": "dark_red",
    }


def test_what_json_lacks_becomes_null() -> None:
    assert plain([math.nan, math.inf, -math.inf, 1.5]) == [None, None, None, 1.5]


def test_numbers_stay_raw() -> None:
    assert json.loads(to_json("x/1", {"seconds": 0.000123456789}))["seconds"] == 0.000123456789


def test_scalars_of_numpy_and_torch_are_numbers() -> None:
    assert plain([np.float64(0.5), torch.tensor(3)]) == [0.5, 3]


def test_a_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="Tensor has no JSON form"):
        plain({"weight": torch.zeros(2)})


def test_the_schema_comes_first_on_one_line() -> None:
    text = to_json("compress.analyze/1", {"model": "ä.pt"})
    assert text == '{"schema": "compress.analyze/1", "model": "ä.pt"}'


def test_a_pattern_is_written_as_its_text() -> None:
    assert plain({"pattern": parse_pattern("shape+filter")}) == {"pattern": "filter+shape"}
