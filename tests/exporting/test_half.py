"""Files in half precision: what is in them, how they are judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from compressor.errors import UsageError, VerificationError
from compressor.exporting import CONVERTED_LIMITS, export_onnx
from compressor.program import InputSpec, Program, capture

Build = Callable[[str], Program]


def test_weights_are_half_and_inputs_are_not(program_of: Build, tmp_path: Path) -> None:
    plain = export_onnx(program_of("plain"), tmp_path / "plain.onnx")
    report = export_onnx(program_of("plain"), tmp_path / "m.onnx", fp16=True)
    model = onnx.load(str(tmp_path / "m.onnx"))
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    assert sum(len(tensor.raw_data) for tensor in weights) == 2 * report.n_params
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert (report.precision, report.limit) == ("fp16", CONVERTED_LIMITS["fp16"])
    assert 1e-6 < report.max_rel <= report.limit
    assert report.n_params == plain.n_params
    assert report.plain_size_bytes is not None and abs(report.plain_size_bytes - plain.size_bytes) < 100
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert props["compress.precision"] == "fp16" and props["compress.params"] == str(report.n_program_params)


def test_a_model_that_half_precision_breaks_is_not_written(program_of: Build, tmp_path: Path) -> None:
    program = program_of("plain")
    with torch.no_grad():
        program.parameters["hidden.weight"].mul_(1e6)
        program.parameters["out.weight"].mul_(1e-6)
    export_onnx(program, tmp_path / "m.onnx")
    with pytest.raises(VerificationError, match=r"differ by .*\nnothing was written; .* leave --fp16 out"):
        export_onnx(program, tmp_path / "half.onnx", fp16=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(("dtype", "name"), [(torch.float64, "float64"), (torch.float16, "float16")])
def test_weights_that_no_converter_touches_are_refused(dtype: torch.dtype, name: str, tmp_path: Path) -> None:
    program = capture(nn.Linear(6, 4).to(dtype), [InputSpec("x", (None, 6))])
    with pytest.raises(UsageError, match=f"--fp16 converts float32 weights, and the model has {name} weights"):
        export_onnx(program, tmp_path / "m.onnx", fp16=True)
    with pytest.raises(UsageError, match="--int8 converts float32 weights"):
        export_onnx(program, tmp_path / "m.onnx", int8="dynamic")


@pytest.mark.parametrize("form", [{"fp16": True}, {"int8": "dynamic"}])
def test_numbers_and_tables_as_inputs_and_several_outputs(program_of: Build, tmp_path: Path, form: Any) -> None:
    report = export_onnx(program_of("several"), tmp_path / "m.onnx", **form)
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    assert [value.name for value in graph.input] == ["ids", "x"]
    assert [value.name for value in graph.output] == ["ids_output", "pooled", "same"]
    assert report.max_rel <= report.limit
