"""Files with 8-bit weights: what is in them, what they need, how they are judged."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch

from compressor.data.arrays import ArraySource
from compressor.errors import UsageError, VerificationError
from compressor.exporting import export_onnx, verify
from compressor.exporting.quantise import Calibration
from compressor.program import Program

Build = Callable[[str], Program]


@pytest.mark.parametrize(("kind", "operator"), [("dynamic", "DynamicQuantizeLinear"), ("static", "QuantizeLinear")])
def test_weights_are_int8(
    program_of: Build,
    data: ArraySource,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kind: Literal["dynamic", "static"],
    operator: str,
) -> None:
    program = program_of("normalised")
    plain = export_onnx(program, io.BytesIO())
    report = export_onnx(program, tmp_path / "m.onnx", int8=kind, data=data)
    model = onnx.load(str(tmp_path / "m.onnx"))
    assert operator in {node.op_type for node in model.graph.node}
    assert "FLOAT" not in {
        onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer if t.name.endswith("_quantized")
    }
    assert (report.precision, report.n_params) == (f"int8 {kind}", plain.n_params)
    assert 1e-4 < report.max_rel <= report.limit == verify.CONVERTED_LIMITS["int8 static"]
    assert report.top1_agreement is not None and report.top1_agreement >= verify.LEAST_INT8_AGREEMENT
    assert {entry.key: entry.value for entry in model.metadata_props}["compress.precision"] == f"int8 {kind}"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert capfd.readouterr() == ("", "")


def test_static_ranges_are_judged_on_samples_where_there_are_some(program_of: Build, data: ArraySource) -> None:
    report = export_onnx(program_of("plain"), io.BytesIO(), int8="static", data=data)
    assert {check.inputs for check in report.checks} == {"validation"}
    assert report.batch_sizes == (1, 2, 5)


def test_static_ranges_need_samples(program_of: Build) -> None:
    with pytest.raises(UsageError, match=r"--int8 static needs samples .* give --data"):
        export_onnx(program_of("plain"), io.BytesIO(), int8="static")


def test_a_file_that_answers_otherwise_is_not_written(
    program_of: Build, data: ArraySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "LEAST_INT8_AGREEMENT", 1.1)
    with pytest.raises(VerificationError, match=r"only 1?\d\d?\.\d% of the validation samples get the same answer"):
        export_onnx(program_of("plain"), tmp_path / "m.onnx", int8="dynamic", data=data)
    monkeypatch.undo()
    spoilt = program_of("plain")
    with torch.no_grad():  # the range of eight bits is spent on one unit that nothing reads
        spoilt.parameters["hidden.bias"][0] = 1e5
        spoilt.parameters["out.weight"][:, 0] = 0
    with pytest.raises(VerificationError, match=r"differ by .*limit 2\.5e-01.*\nnothing was written; try the other"):
        export_onnx(spoilt, tmp_path / "m.onnx", int8="dynamic")
    assert list(tmp_path.iterdir()) == []


def test_calibration_reads_so_many_training_samples(program_of: Build, data: ArraySource, tmp_path: Path) -> None:
    export_onnx(program_of("plain"), tmp_path / "m.onnx")
    model = onnx.load(str(tmp_path / "m.onnx"))
    reader = Calibration(model, data, 12, None)
    (feeds,) = [feeds for feeds in iter(reader.get_next, None) if feeds is not None]
    assert feeds["x"].shape == (12, 1, 8, 8) and feeds["x"].dtype == np.float32
    assert torch.equal(torch.from_numpy(feeds["x"]), next(iter(data.batches("train", 12))).inputs[0])
    fixed = Calibration(model, data, 12, 5)
    assert [feeds["x"].shape[0] for feeds in iter(fixed.get_next, None) if feeds is not None] == [5, 5]
