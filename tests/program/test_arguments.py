"""Arguments by schema name, wherever a graph has put them."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx

from compressor.program import arguments, set_argument

aten = torch.ops.aten


def node(target: object, *args: object, **kwargs: object) -> fx.Node:
    graph = fx.Graph()
    x = graph.placeholder("x")
    return graph.call_function(target, (x, *args), kwargs)  # type: ignore[arg-type]


def test_defaults_are_filled_in() -> None:
    bound = arguments(node(aten.conv2d.default, None, stride=[2, 2]))
    assert (bound["stride"], bound["padding"], bound["groups"], bound["bias"]) == ([2, 2], [0, 0], 1, None)


def test_the_same_argument_stands_at_different_places() -> None:
    assert arguments(node(aten.dropout.default, 0.5, True))["train"] is True
    flags = arguments(node(aten.batch_norm.default, None, None, None, None, True, 0.1, 1e-5, False))
    assert flags["training"] is True and flags["momentum"] == 0.1


def test_a_missing_argument_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"aten\.dropout\.default has no argument p"):
        arguments(node(aten.dropout.default))


def test_taking_apart_and_integer_arithmetic_have_names_too() -> None:
    assert arguments(node(operator.getitem, 2))["index"] == 2
    assert arguments(node(operator.add, 3))["other"] == 3


def test_an_argument_is_set_where_it_is_or_as_a_keyword() -> None:
    placed = node(aten.dropout.default, 0.5, False)
    set_argument(placed, "train", True)
    assert placed.args[2] is True and not placed.kwargs
    left_out = node(aten.conv2d.default, None)
    set_argument(left_out, "groups", 4)
    assert left_out.kwargs == {"groups": 4} and arguments(left_out)["groups"] == 4
    with pytest.raises(KeyError, match="has no argument colour"):
        set_argument(left_out, "colour", 1)
