"""How a file computes and what it takes, told from the file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.exporting.contents import fixed_batch, precision_of


def model(
    operator: str = "MatMul", element: type = np.float32, dims: tuple[int | str, ...] = ("batch", 4)
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, dims)],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 3), element), "w")],
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(
    ("operator", "element", "is_half", "precision"),
    [
        ("MatMul", np.float32, False, "unchanged"),
        ("MatMul", np.float16, False, "fp16"),
        ("MatMul", np.float16, True, "unchanged"),
        ("MatMulInteger", np.int8, False, "int8 dynamic"),
        ("DequantizeLinear", np.int8, False, "int8 static"),
        ("QLinearConv", np.int8, False, "int8 static"),
    ],
)
def test_the_precision_shows_in_operators_and_weights(
    operator: str, element: type, is_half: bool, precision: str
) -> None:
    assert precision_of(model(operator, element), is_half) == precision


def test_a_fixed_batch_shows_in_the_first_input() -> None:
    assert fixed_batch(model(dims=(3, 4))) == 3
    assert fixed_batch(model()) is None
    assert fixed_batch(helper.make_model(helper.make_graph([], "empty", [], []))) is None
