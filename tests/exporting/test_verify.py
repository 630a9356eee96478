"""The comparison of two runtimes, and that it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.errors import VerificationError
from compressor.exporting import export_onnx
from compressor.exporting.verify import FileComparison, Verification, check_file, onnx_run
from compressor.program import InputSpec, Program, capture


def compare(program: Program, path: Path, sizes: tuple[int, ...]) -> Verification:
    return FileComparison(program, onnx_run(path)).verification(sizes, None)


def test_a_file_of_other_weights_is_found_out(tmp_path: Path) -> None:
    first, second = (capture(nn.Linear(4, 3), [InputSpec("x", (None, 4))]) for _ in range(2))
    export_onnx(first, tmp_path / "m.onnx")
    found = compare(first, tmp_path / "m.onnx", (1, 3))
    assert found.worst.max_rel <= found.worst.limit == 1e-5 and found.batch_sizes == (1, 3)
    with pytest.raises(
        VerificationError, match=r"differ by .* of the largest output \(limit 1\.0e-05.*\) on a random batch of 1"
    ):
        compare(second, tmp_path / "m.onnx", (1,))


def test_outputs_without_a_finite_number_prove_nothing(tmp_path: Path) -> None:
    program = capture(nn.Linear(4, 3), [InputSpec("x", (None, 4))])
    export_onnx(program, tmp_path / "m.onnx")
    with torch.no_grad():
        program.parameters["bias"].fill_(float("nan"))
    with pytest.raises(VerificationError, match="no finite number"):
        compare(program, tmp_path / "m.onnx", (1,))


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07no model")
    with pytest.raises(VerificationError, match="not valid"):
        check_file(tmp_path / "m.onnx")


def test_another_number_of_inputs_or_outputs_is_said(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x - 1

    class Both(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    one = capture(nn.ReLU(), [InputSpec("x", (None, 4))])
    export_onnx(one, tmp_path / "m.onnx")
    with pytest.raises(VerificationError, match="there are 1 outputs where the model has 2"):
        compare(capture(Two(), [InputSpec("x", (None, 4))]), tmp_path / "m.onnx", (1,))
    with pytest.raises(VerificationError, match="reads 1 inputs, the model 2"):
        compare(capture(Both(), [InputSpec("x", (None, 4)), InputSpec("y", (None, 4))]), tmp_path / "m.onnx", (1,))
