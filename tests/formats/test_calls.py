"""A call fits its operator's schema before anything runs it."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import fx

from compressor.errors import ModelError
from compressor.formats.calls import check_call

aten = torch.ops.aten
GRAPH = fx.Graph()
X = GRAPH.placeholder("x")
SIZE = GRAPH.call_function(aten.sym_size.int, (X, 0))
SIZES = GRAPH.call_function(aten.sym_size.default, (X,))
SIZE_OF_LIST = GRAPH.call_function(operator.getitem, (SIZES, 1))
PARTS = GRAPH.call_function(aten.split.Tensor, (X, 2))
PART = GRAPH.call_function(operator.getitem, (PARTS, 0))
SUM = GRAPH.call_function(operator.add, (SIZE, 1))


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (aten.relu.default, (X,), {}),
        (aten.add.Tensor, (X, 2.0), {"alpha": 2}),
        (aten.softmax.int, (X, -1), {"dtype": None}),
        (aten.einsum.default, ("ij->ji", [X]), {}),
        (aten.zeros.default, ([2, SIZE],), {"dtype": torch.float32, "device": torch.device("cpu")}),
        (aten.div.Tensor_mode, (X, 2), {"rounding_mode": "floor"}),
        (aten.normal_functional.default, (X,), {"generator": None}),
        (operator.getitem, (PARTS, 0), {}),
        (operator.getitem, (PARTS, slice(0, None)), {}),
        (operator.mul, (SUM, SIZE_OF_LIST), {}),
        (operator.pow, (SIZE, 2), {}),
        (operator.neg, (SIZE,), {}),
        (torch.sym_ite, (SIZE, 1, SUM), {}),
    ],
)
def test_calls_that_fit(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert check_call(target, args, kwargs) is None


@pytest.mark.parametrize(
    ("target", "args", "kwargs", "message"),
    [
        (aten.relu.default, (), {}, "lacks its argument self"),
        (aten.relu.default, (X, 1), {}, "takes 1 positional arguments, not 2"),
        (aten.add.Tensor, (X, X, 2), {}, "takes 2 positional arguments, not 3"),
        (aten.relu.default, (X,), {"self": X}, "is given self twice"),
        (aten.relu.default, (X,), {"x=1) or __import__('os'": 1}, "has no argument"),
        (aten.relu.default, ("x",), {}, "must be Tensor, not str"),
        (aten.einsum.default, (3, [X]), {}, "must be str, not int"),
        (aten.cat.default, (["x", X],), {}, r"must be List\[Tensor\]"),
        (aten.softmax.int, (X, -1), {"dtype": -2}, "dtype must be Optional"),
        (aten.softmax.int, (X, torch.float32), {}, "dim must be int"),
        (aten.matrix_power.default, (X, -(2**63)), {}, "n must be int"),
        (aten.zeros.default, ([2],), {"device": "cpu"}, "device must be"),
        (aten.rand.generator, ([2],), {"generator": 3}, "generator must be"),
        (operator.getitem, (PARTS, "a"), {}, "an integer or a slice"),
        (operator.getitem, (PARTS, slice("a", None)), {}, "an integer or a slice"),
        (operator.getitem, (PARTS, None), {}, "an integer or a slice"),
        (operator.getitem, ([1, 2], 0), {}, "a value of the graph"),
        (operator.add, (SIZE, 1), {"c": 1}, "no named arguments"),
        (operator.add, (SIZE,), {}, "takes 2 arguments, not 1"),
        (operator.mul, ("a", 10**9), {}, "computes on numbers only"),
        (operator.mul, ([1], 10**9), {}, "computes on numbers only"),
        (operator.mul, (PARTS, 10**9), {}, "computes on numbers only"),
        (operator.mul, (PART, SIZE), {}, "computes on numbers only"),
        (operator.mul, (X, SIZE), {}, "computes on numbers only"),
        (operator.pow, (SIZE, 10**9), {}, "a power above 8"),
        (operator.pow, (SIZE, SIZE), {}, "one that is computed"),
    ],
)
def test_calls_that_do_not_fit(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_call(target, args, kwargs)
