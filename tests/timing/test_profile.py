"""Where the time goes: events read, operators given to layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.program import Program
from compressor.timing.profile import Layers, profile, runs_of
from compressor.timing.providers import find_provider
from compressor.timing.subjects import open_subjects

CPU = find_provider("cpu")
Write = Callable[..., Path]


def node(name: str, operator: str, us: int) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": {"op_name": operator}}


def test_events_are_sorted_into_runs() -> None:
    end = {"cat": "Session", "name": "model_run", "dur": 99}
    other = [{"cat": "Session", "name": "session_initialization", "dur": 7}, {"cat": "Node", "name": "a_fence_before"}]
    events = [*other, node("a", "Conv", 5), node("b", "Relu", 1), end, node("a", "Conv", 6), node("b", "Relu", 2), end]
    assert runs_of(events) == [[("a", "Conv", 5.0), ("b", "Relu", 1.0)], [("a", "Conv", 6.0), ("b", "Relu", 2.0)]]


def model() -> onnx.ModelProto:
    """Two convolutions, the first with a shortcut behind it; a quantised layer and one with a transposed weight."""
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "stem.weight", "b"], ["c"], name="node_conv"),
        make("Add", ["c", "x"], ["s"], name="node_add"),
        make("Relu", ["s"], ["r"], name="node_relu"),
        make("Conv", ["r", "body.weight"], ["d"], name="node_conv_1"),
        make("DequantizeLinear", ["fc.weight_quantized", "fc.weight_scale"], ["w"], name="dq"),
        make("MatMul", ["d", "w"], ["m"], name="node_matmul"),
        make("MatMul", ["m", "head.weight.T"], ["y"], name="node_head"),
    ]
    shapes = {"stem.weight": (2, 1, 3, 3), "body.weight": (2, 2, 3, 3), "b": (2,), "head.weight.T": (4, 3)}
    tensors = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    tensors.append(numpy_helper.from_array(np.ones((4, 4), np.int8), "fc.weight_quantized"))
    value = helper.make_tensor_value_info
    ends = [value("x", TensorProto.FLOAT, None)], [value("y", TensorProto.FLOAT, None)]
    return helper.make_model(helper.make_graph(nodes, "g", *ends, tensors))


@pytest.mark.parametrize(
    ("name", "operator", "layer"),
    [
        ("node_conv", "Conv", "stem"),
        ("relu", "Relu", None),
        ("c_nchwc", "Conv", "stem"),
        ("r_nchwc", "Conv", "stem"),
        ("r_nchwc_token_7", "Conv", "stem"),
        ("InsertedPrecisionFreeCast_d_nchwc", "Conv", "body"),
        ("fused node_conv_1", "FusedConv", "body"),
        ("node_matmul_quant", "QLinearMatMul", "fc"),
        ("node_head", "MatMul", "head"),
        ("ReorderOutput", "ReorderOutput", None),
        ("nobody", "Conv", None),
    ],
)
def test_operators_are_given_to_the_layer_whose_weights_they_read(name: str, operator: str, layer: str | None) -> None:
    assert Layers(model()).layer(name, operator) == layer


def test_a_real_profile_adds_up(onnx_file: Write) -> None:
    (opened,) = open_subjects([onnx_file()], CPU)
    found, reason = profile(opened, CPU, 1, 4)
    assert found is not None and reason == ""
    assert found.n_runs >= 20 and found.batch == 4
    assert [(one.layer, one.operator) for one in found.operators] == [("w", "MatMul"), (None, "Relu")]
    assert found.seconds == pytest.approx(sum(one.seconds for one in found.operators))
    assert all(one.seconds >= 0 for one in found.operators)


def test_what_has_no_profile_says_why(program: Program, onnx_file: Write) -> None:
    (in_torch,) = open_subjects([program], CPU)
    assert profile(in_torch, CPU, 1, 1) == (None, "tiny runs in torch")
    (on_file,) = open_subjects([onnx_file()], CPU)
    assert "on cuda the profiler sees when work is handed over" in profile(on_file, find_provider("cuda"), 1, 1)[1]
