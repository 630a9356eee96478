"""Weights of an ONNX file counted, however they are stored."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from compressor.formats.onnx_weights import count_onnx_parameters


def test_weights_are_counted_and_constants_are_not() -> None:
    arrays = {
        "conv.weight": np.ones((2, 1, 3, 3), np.float32),
        "half": np.ones(5, np.float16),
        "epsilon": np.array(1e-5, np.float32),
        "shape": np.array([1, 2]),
        "fc.weight_quantized": np.ones((4, 3), np.int8),
        "fc.weight_scale": np.ones(4, np.float32),
        "fc.weight_zero_point": np.zeros(4, np.int8),
    }
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    assert count_onnx_parameters(helper.make_model(graph)) == 18 + 5 + 12
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    positions = numpy_helper.from_array(np.array([7]), "sparse_positions")
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, positions, [10, 10]))
    assert count_onnx_parameters(helper.make_model(graph)) == 35 + 100
