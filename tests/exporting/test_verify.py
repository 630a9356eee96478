"""The comparison of two runtimes, and that it can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import VerificationError
from compressor.exporting import export_onnx
from compressor.exporting.verify import check_file, compare_with_torch, difference
from compressor.program import InputSpec, capture

INF = float("inf")


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        ([1.0, -4.0], [1.0, -4.0], (0.0, 0.0)),
        ([1.0, -4.0], [2.0, -4.0], (1.0, 0.25)),
        ([0.0, 0.0], [0.0, 0.0], (0.0, 0.0)),
        ([0.0, 0.0], [0.0, 1e-9], (1e-9, INF)),
        ([1.0, np.nan], [1.0, np.nan], (0.0, 0.0)),
        ([1.0, np.nan], [1.0, 1.0], (INF, INF)),
        ([1.0, 1.0], [1.0, np.nan], (INF, INF)),
        ([1.0, INF], [1.0, -INF], (INF, INF)),
        ([1.0, 2.0], [1.0, 2.0, 3.0], (INF, INF)),
        ([[1.0, 2.0]], [1.0, 2.0], (INF, INF)),
    ],
)
def test_difference(reference: list[float], other: list[float], expected: tuple[float, float]) -> None:
    assert difference(np.array(reference), np.array(other)) == expected


def test_difference_does_not_wrap_around_in_small_integers() -> None:
    assert difference(np.array([0], np.uint8), np.array([255], np.uint8))[0] == 255


def test_a_file_of_other_weights_is_found_out(tmp_path: Path) -> None:
    first, second = (capture(nn.Linear(4, 3), [InputSpec("x", (None, 4))]) for _ in range(2))
    export_onnx(first, tmp_path / "m.onnx")
    agreement = compare_with_torch(first, first.module.eval(), tmp_path / "m.onnx", (1, 3), None)
    assert agreement.max_rel <= agreement.limit and agreement.batch_sizes == (1, 3)
    with pytest.raises(VerificationError, match="of the largest output on a random batch of 1"):
        compare_with_torch(second, second.module.eval(), tmp_path / "m.onnx", (1,), None)


def test_outputs_without_a_finite_number_prove_nothing(tmp_path: Path) -> None:
    program = capture(nn.Linear(4, 3), [InputSpec("x", (None, 4))])
    export_onnx(program, tmp_path / "m.onnx")
    with torch.no_grad():
        program.parameters["bias"].fill_(float("nan"))
    with pytest.raises(VerificationError, match="no finite number"):
        compare_with_torch(program, program.module.eval(), tmp_path / "m.onnx", (1,), None)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07no model")
    with pytest.raises(VerificationError, match="not valid"):
        check_file(tmp_path / "m.onnx")
