"""Small programs as ONNX: onnxruntime computes what torch does, and what a trial cannot hold is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, Program, capture
from compressor.timing.operator_onnx import operator_model


class Moved(nn.Module):
    """Everything that a lowered convolution is written with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, (2, 3), stride=(1, 2))
        self.register_buffer("index", torch.tensor([4, 0, 1, 1, 2, 3]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.index_select(1, self.index)
        x = F.pad(x, (1, -1, 0, 2))
        x = torch.cat((x[:, :, 1:5], x[:, :, 2::2][:, :, :2]), 2).relu()
        return self.conv(x).reshape(-1, 2, 20)


def run(program: Program, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """What onnxruntime and torch give for the same input."""
    model = operator_model(program, batch)
    onnx.checker.check_model(onnx.load_from_string(model))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (x,) = program.example_inputs(batch)
    with torch.no_grad():
        expected = program.module(x).numpy()
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return np.asarray(got), expected


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Moved, (5, 6, 9)),
        (lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), dilation=2, groups=2, bias=False), (4, 8, 7)),
        (lambda: nn.Conv2d(4, 6, (3, 4), padding="same"), (4, 8, 7)),
        (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (4, 8, 7)),
        (lambda: nn.Conv1d(3, 4, 3, stride=2), (3, 11)),
        (lambda: nn.Conv3d(2, 3, 2), (2, 4, 5, 4)),
        (lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), (4, 5, 5)),
        (lambda: nn.Linear(5, 3), (5,)),
        (lambda: nn.Linear(5, 3, bias=False), (5,)),
        (lambda: nn.Linear(5, 3), (4, 5)),
        (lambda: nn.Linear(5, 3, bias=False), (4, 5)),
    ],
)
def test_onnxruntime_computes_what_torch_does(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    program = capture(make(), [InputSpec("x", (None, *shape))])
    for batch in (1, 3):
        got, expected = run(program, batch)
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_an_operator_that_trials_do_not_consist_of_is_refused() -> None:
    program = capture(nn.Softmax(1), [InputSpec("x", (None, 5))])
    with pytest.raises(ModelError, match=r"softmax.* is no operator of a trial"):
        operator_model(program, 1)
