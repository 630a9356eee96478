"""Small ONNX models, and the check that an imported one computes what onnxruntime does; it must never hold tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.formats.onnx_import import import_onnx
from compressor.program import InputSpec, Program

IMAGE = ("N", 4, 6, 7)
Array = np.ndarray
ELEMENT = {
    "float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "float64": TensorProto.DOUBLE, "bool": TensorProto.BOOL,
    "int32": TensorProto.INT32, "float16": TensorProto.FLOAT16,
}  # fmt: skip


def numbers(*shape: int, seed: int = 0) -> Array:
    """Random float32 numbers. Shapes:  -> shape"""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Array] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    dtypes: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A model; the outputs' types are left to be inferred."""
    kinds = dtypes or {}
    given = [
        helper.make_tensor_value_info(k, ELEMENT[kinds.get(k, "float32")], list(shape)) for k, shape in inputs.items()
    ]
    made = [helper.make_tensor_value_info(k, ELEMENT[kinds.get(k, "float32")], None) for k in outputs]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", given, made, initializer=held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def one_node(
    kind: str,
    shape: Sequence[int | str] = IMAGE,
    constants: Sequence[Array | None] = (),
    *,
    opset: int = 17,
    n_outputs: int = 1,
    out: str = "float32",
    dtype: str = "float32",
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of a single node that reads `x` and then the constants."""
    names = ["" if value is None else f"c{i}" for i, value in enumerate(constants)]
    outputs = ["y", *(f"y{i}" for i in range(1, n_outputs))]
    node = helper.make_node(kind, ["x", *names], outputs, name="node", **attributes)
    held = {name: value for name, value in zip(names, constants, strict=True) if value is not None}
    kinds = {"x": dtype, **dict.fromkeys(outputs, out)}
    return model_of([node], {"x": shape}, held, outputs=outputs, opset=opset, dtypes=kinds)


def imported(model: onnx.ModelProto, inputs: Sequence[InputSpec] = (), name: str = "m.onnx") -> Program:
    return import_onnx(BytesIO(model.SerializeToString()), name, inputs=inputs)


def agrees(
    model: onnx.ModelProto, *, batches: Sequence[int] = (1, 3), tolerance: float = 1e-5, positive: bool = False
) -> Program:
    """The imported program, after it gave what onnxruntime gives for random inputs of every batch size."""
    program = imported(model)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # onnxruntime 1.31 with its optimiser makes Range(n - 1, -1, -1) empty
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for batch in batches if program.has_dynamic_batch else [program.inputs[0].shape[0] or 1]:
        x = program.example_inputs(batch, seed=batch)
        x = tuple(v.abs() + 0.1 for v in x) if positive else x
        feeds = {given.name: v.numpy() for given, v in zip(session.get_inputs(), x, strict=True)}
        wanted = session.run(None, feeds)
        found = outputs_of(program, x)
        assert len(found) == len(wanted)
        for mine, theirs in zip(found, wanted, strict=True):
            assert tuple(mine.shape) == np.asarray(theirs).shape
            assert str(mine.dtype).removeprefix("torch.") == str(np.asarray(theirs).dtype)
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=tolerance, atol=tolerance)
    return program


@torch.no_grad()
def outputs_of(program: Program, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    result = program.module(*inputs)
    return list(result.values()) if isinstance(result, dict) else [result]
