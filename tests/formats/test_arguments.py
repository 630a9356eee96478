"""Arguments come back as they were, type for type; nothing else comes in."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import fx

from compressor.errors import ModelError
from compressor.formats.arguments import decode, encode


def through_json(value: Any, nodes: dict[str, fx.Node]) -> Any:
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)), nodes)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 1, 1.0, -0.0, 1e-300, 9223372036854775807, math.inf, -math.inf, "a'\"\\\n", [], (), {},
        [1, (2, [3.0]), {"a": None}], slice(None, 3, None), slice(1, None, 2), torch.float32, torch.bfloat16,
        torch.strided, torch.channels_last, torch.device("cpu"), torch.device("cuda:1"),
        {"node": 3, "float": "inf"},
    ],
)  # fmt: skip
def test_round_trip(value: Any) -> None:
    back = through_json(value, {})
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_nan_and_nodes() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    assert math.isnan(through_json(math.nan, {}))
    assert through_json([x, (x,), {"k": x}], {"x": x}) == [x, (x,), {"k": x}]


@pytest.mark.parametrize("value", [1j, object(), {1: 2}, torch.zeros(1), b"a", {3}])
def test_what_a_graph_cannot_hold_is_not_written(value: Any) -> None:
    with pytest.raises(ModelError, match="cannot be kept in a checkpoint"):
        encode(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"node": "later"}, "does not come before it"),
        ({"node": ["x"]}, "does not come before it"),
        ({"dtype": "load"}, "no known value"),
        ({"dtype": ["float32"]}, "no known value"),
        ({"layout": "float32"}, "no known value"),
        ({"code": "1"}, "no known value"),
        ({}, "no known value"),
        ({"tuple": [], "node": "x"}, "no known value"),
        ({"tuple": 3}, "tuple that is no list"),
        ({"dict": []}, "something that is not a dictionary"),
        ({"slice": [1]}, "three parts"),
        ({"float": "1; import os"}, "not a number"),
        ({"device": "cpu; import os"}, "unknown device"),
        (2**63, "beyond 64 bits"),
        ("a" * 20_000, "20000 characters"),
        ("# COUNTER: 3", "generated code cannot hold"),
        ({"dict": {"a # COUNTER: 3": 1}}, "generated code cannot hold"),
    ],
)
def test_unknown_values_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        decode(value, {})
