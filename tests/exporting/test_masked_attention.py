"""Attention of a position that may see no other is 0 in a file as in torch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from compressor import capture
from compressor.exporting import export_onnx
from compressor.program import InputSpec


class Attention(nn.Module):
    """Heads under a mask of booleans: 1 in `seen` is what a position of the same sample may look at."""

    def __init__(self) -> None:
        super().__init__()
        self.projected = nn.Linear(8, 24)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = self.projected(x).reshape(x.shape[0], x.shape[1], 3, 2, 4).permute(2, 0, 3, 1, 4)
        mask = (seen > 0.5)[:, None, None, :].expand(-1, 1, x.shape[1], -1)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)


class OwnGuard(nn.Module):
    """A softmax guarded by the user's own code, under a number that hides little."""

    def forward(self, x: Tensor) -> Tensor:
        weights = (x + torch.where(x > 0, 0.0, -1.0)).softmax(-1)
        return torch.where(weights.isnan(), 0.0, weights)


def run(path: Path, *inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    (result,) = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
    return np.asarray(result)


@pytest.mark.parametrize("length", [5, 16, 48])
def test_a_row_that_is_hidden_whole_is_0(tmp_path: Path, length: int) -> None:
    torch.manual_seed(0)
    module = Attention().eval()
    program = capture(module, (InputSpec("x", (None, length, 8)), InputSpec("seen", (None, length))))
    export_onnx(program, tmp_path / "net.onnx")
    x, seen = torch.randn(3, length, 8), torch.ones(3, length)
    seen[1], seen[2, 2:] = 0, 0
    with torch.no_grad():
        expected = module(x, seen)
    assert float(expected[1].abs().max()) == 0 and float(expected[2].abs().min()) > 0
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x, seen), expected, atol=1e-6)
    kinds = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert "Softmax" in kinds and "IsNaN" not in kinds


def test_a_guard_of_the_networks_own_stays(tmp_path: Path) -> None:
    program = capture(OwnGuard(), (InputSpec("x", (None, 6)),))
    export_onnx(program, tmp_path / "net.onnx")
    assert "IsNaN" in {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    x = torch.randn(2, 6)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), OwnGuard()(x), atol=1e-6)
