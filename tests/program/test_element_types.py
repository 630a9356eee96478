"""Element types: every name is known to whom it belongs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from compressor.program.element_types import ELEMENT_TYPES, ElementType


@pytest.mark.parametrize("kind", ELEMENT_TYPES, ids=lambda kind: kind.name)
def test_every_name_is_that_of_the_type(kind: ElementType) -> None:
    code = TensorProto.DataType.Value(kind.onnx)
    assert isinstance(kind.torch_dtype, torch.dtype)
    value = helper.make_tensor_value_info("x", code, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [
        helper.make_tensor_value_info("y", code, [1])
    ])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == kind.runtime
    if kind.in_numpy:
        assert torch.zeros(1, dtype=kind.torch_dtype).numpy().dtype == onnx.helper.tensor_dtype_to_np_dtype(code)


def test_numpy_lacks_what_is_said_to_be_lacking() -> None:
    for kind in ELEMENT_TYPES:
        if not kind.in_numpy:
            with pytest.raises(TypeError):
                torch.zeros(1, dtype=kind.torch_dtype).numpy()
    assert np.dtype("float64") == torch.zeros(1, dtype=torch.float64).numpy().dtype
