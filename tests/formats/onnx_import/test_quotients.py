"""Whole numbers divided by inputs go the whole way: imported, compacted, written, read again, exported."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import helper

import compressor
from compressor.program import parse_input
from tests.formats.onnx_import.building import model_of, numbers


@pytest.mark.parametrize("kind", ["Div", "Mod"])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_a_quotient_of_inputs_goes_the_whole_way(kind: str, dtype: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node(kind, ["a", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["f"], to=1),
        helper.make_node("Add", ["f", "x"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    model = model_of(
        nodes, {"a": ["N", 8], "b": ["N", 8], "x": ["N", 8]}, {"w": numbers(8, 16), "v": numbers(16, 4, seed=1)},
        dtypes={"a": dtype, "b": dtype},
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    program = compressor.load(
        path, inputs=[parse_input(f"a:{dtype}:8<9"), parse_input(f"b:{dtype}:8<9"), parse_input("x:8")]
    )
    pruned, _ = compressor.prune(program, compressor.PruneSettings(ratio=1.5, retrain_recipe=None, round_to=1))
    compact, _ = compressor.compact(pruned)
    file = io.BytesIO()
    compressor.save(compact, file)
    again = compressor.load(io.BytesIO(file.getvalue()))
    report = compressor.export(again, tmp_path / "small.onnx")
    assert report.max_rel < 1e-5
    random = np.random.default_rng(0)
    a = random.integers(-50, 50, (3, 8)).astype(dtype)
    b = random.choice([-3, -2, -1, 1, 2, 5], (3, 8)).astype(dtype)
    x = numbers(3, 8, seed=2)
    feeds = {"a": a, "b": b, "x": x}
    theirs = ort.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    with torch.no_grad():
        ours = again.module(*map(torch.from_numpy, (a, b, x)))
        before = pruned.module(*map(torch.from_numpy, (a, b, x)))
    np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(before.numpy(), ours.numpy(), rtol=1e-4, atol=1e-5)
