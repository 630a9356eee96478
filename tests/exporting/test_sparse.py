"""Sparse initializers: smaller where they should be, the same values always."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper

from compressor.errors import UsageError
from compressor.exporting import export_onnx
from compressor.exporting.sparse import to_sparse
from compressor.program import Program

Build = Callable[[str], Program]


def cut(program: Program, share: float) -> Program:
    """That share of the largest layer's weights zero, chosen by their size."""
    weight = program.parameters["hidden.weight"]
    with torch.no_grad():
        weight.mul_(weight.abs() > weight.abs().flatten().quantile(share))
    return program


def test_a_pruned_layer_is_smaller_and_computes_the_same(program_of: Build, tmp_path: Path) -> None:
    program = cut(program_of("plain"), 0.95)
    report = export_onnx(program, tmp_path / "m.onnx", sparse=True)
    assert report.n_sparse == 1 and report.precision == "unchanged"
    assert report.plain_size_bytes is not None and report.size_bytes < report.plain_size_bytes / 2
    assert report.size_bytes == (tmp_path / "m.onnx").stat().st_size
    assert report.n_params == program.n_parameters
    (x,) = program.example_inputs(3)
    (got,) = ort.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"x": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(np.asarray(got), program.module.eval()(x).numpy(), atol=1e-5)


def test_what_would_be_larger_stays_dense(program_of: Build) -> None:
    for share, expected in ((0.60, 0), (0.70, 1)):
        report = export_onnx(cut(program_of("plain"), share), io.BytesIO(), sparse=True)
        assert report.n_sparse == expected


def test_half_precision_goes_with_it_and_int8_does_not(program_of: Build) -> None:
    report = export_onnx(cut(program_of("plain"), 0.95), io.BytesIO(), sparse=True, fp16=True)
    assert (report.n_sparse, report.precision) == (1, "fp16")
    with pytest.raises(UsageError, match="--int8 and --sparse store the same weights in two ways"):
        export_onnx(program_of("plain"), io.BytesIO(), sparse=True, int8="dynamic")


def test_a_tensor_without_any_value_keeps_its_shape() -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [value("x", 1, [40])],
        [value("y", 1, [40])],
        [numpy_helper.from_array(np.zeros(40, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    sparse, n = to_sparse(model)
    onnx.checker.check_model(sparse)
    (got,) = ort.InferenceSession(sparse.SerializeToString()).run(None, {"x": np.arange(40, dtype=np.float32)})
    assert n == 1 and np.array_equal(np.asarray(got), np.arange(40))
