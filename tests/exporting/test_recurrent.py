"""Recurrent layers in ONNX: one operator each, for any number of steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch import nn

import compressor
from compressor.program import InputSpec
from tests.formats.onnx_import.building import model_of, numbers

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def file_of(kind: str, direction: str, path: Path) -> Path:
    """(N, L, 5) -> (N, L, 3), the length open."""
    n_directions, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    held = {
        "W": numbers(n_directions, gates * 6, 5), "R": numbers(n_directions, gates * 6, 6, seed=1),
        "B": numbers(n_directions, gates * 12, seed=2), "w": numbers(6 * n_directions, 3, seed=3),
        "to": np.array([0, 0, -1], np.int64),
    }  # fmt: skip
    attributes = {"hidden_size": 6, "direction": direction, **({"linear_before_reset": 1} if kind == "GRU" else {})}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(kind, ["t", "W", "R", "B"], ["h"], **attributes),
        helper.make_node("Transpose", ["h"], ["s"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["s", "to"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path.write_bytes(model_of(nodes, {"x": ["N", "L", 5]}, held).SerializeToString())
    return path


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_the_number_of_steps_stays_open(kind: str, direction: str, tmp_path: Path) -> None:
    path = file_of(kind, direction, tmp_path / "m.onnx")
    program = compressor.load(path, inputs=[InputSpec("x", (None, 7, 5))])
    pruned, _ = compressor.prune(program, compressor.PruneSettings(ratio=1.4, round_to=1, retrain_recipe=None))
    compact, _ = compressor.compact(pruned)
    report = compressor.export(compact, tmp_path / "small.onnx")
    assert not report.notes
    written = onnx.load(tmp_path / "small.onnx")
    assert [d.dim_param or d.dim_value for d in written.graph.input[0].type.tensor_type.shape.dim] == ["N", "L", 5]
    assert [n.op_type for n in written.graph.node].count(kind) == 1
    session = ort.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    for n_samples, n_steps in ((1, 7), (3, 2), (2, 19)):
        x = numbers(n_samples, n_steps, 5, seed=n_steps)
        with torch.no_grad():
            masked = pruned.module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(None, {"x": x})[0], masked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_plain_recurrence_is_one_operator_per_layer(nonlinearity: str, bias: bool, tmp_path: Path) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(5, 6, 2, nonlinearity, bias, batch_first=True, bidirectional=True)
            self.out = nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.rnn(x)[0])

    report = compressor.export(compressor.load(Tagger(), "7x5"), tmp_path / "m.onnx")
    assert report.max_rel < 1e-5
    assert [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node].count("RNN") == 2
