"""Files that exist, held against a program."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from compressor.data.arrays import ArraySource
from compressor.errors import ModelError, UsageError, VerificationError
from compressor.exporting import check_onnx, export_onnx
from compressor.program import Program

Build = Callable[[str], Program]


@pytest.mark.parametrize(
    ("form", "precision"),
    [
        ({}, "unchanged"),
        ({"fp16": True}, "fp16"),
        ({"int8": "dynamic"}, "int8 dynamic"),
        ({"int8": "static"}, "int8 static"),
        ({"batch": 4}, "unchanged"),
    ],
)
def test_the_file_says_itself_how_it_is_to_be_judged(
    program_of: Build, data: ArraySource, tmp_path: Path, form: dict[str, Any], precision: str
) -> None:
    program = program_of("plain")
    written = export_onnx(program, tmp_path / "m.onnx", data=data, **form)
    before = (tmp_path / "m.onnx").read_bytes()
    found = check_onnx(program, tmp_path / "m.onnx", data=data)
    assert found.precision == precision == written.precision
    assert (found.checks, found.limit, found.batch) == (written.checks, written.limit, written.batch)
    assert (found.n_params, found.opset, found.size_bytes) == (written.n_params, written.opset, written.size_bytes)
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_sparse_file_is_checked_too(program_of: Build, tmp_path: Path) -> None:
    program = program_of("plain")
    with torch.no_grad():
        program.parameters["hidden.weight"].zero_()
    export_onnx(program, tmp_path / "m.onnx", sparse=True)
    assert check_onnx(program, tmp_path / "m.onnx").n_sparse == 1


def test_a_network_whose_batch_is_one_is_held_against_its_own_file(program_of: Build, tmp_path: Path) -> None:
    program = program_of("fixed-batch")
    export_onnx(program, tmp_path / "m.onnx")
    started = time.perf_counter()
    found = check_onnx(program, tmp_path / "m.onnx")
    assert found.batch == 1 and 0 < found.seconds <= time.perf_counter() - started


def test_weights_beside_the_file_count(program_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("compressor.exporting.export"), "EXTERNAL_ABOVE_BYTES", 100)
    program = program_of("plain")
    export_onnx(program, tmp_path / "m.onnx")
    found = check_onnx(program, tmp_path / "m.onnx")
    assert found.external_data
    assert found.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir()) > 4 * program.n_parameters


def test_another_checkpoint_is_found_out(program_of: Build, tmp_path: Path) -> None:
    program = program_of("plain")
    export_onnx(program, tmp_path / "m.onnx")
    with torch.no_grad():
        program.parameters["out.bias"].add_(0.1)
    with pytest.raises(VerificationError, match=r"m\.onnx: .* differ by .*\nexport it again from this checkpoint"):
        check_onnx(program, tmp_path / "m.onnx")


def test_what_cannot_be_checked_is_refused(program_of: Build, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file to check"):
        check_onnx(program_of("plain"), tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        check_onnx(program_of("plain"), tmp_path / "text.onnx")
    export_onnx(program_of("fixed-batch"), tmp_path / "m.onnx")
    model = onnx.load(str(tmp_path / "m.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(UsageError, match="fixed at 3, that of the checkpoint at 1"):
        check_onnx(program_of("fixed-batch"), tmp_path / "m.onnx")
