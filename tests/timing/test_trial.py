"""A file that does not come to an end, or ends the process, is not measured; all others are."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import ModelError
from compressor.program import parse_input
from compressor.timing import bench, trial

node = helper.make_node
BRIEF = {"min_runs": 3, "min_seconds": 0.01, "max_seconds": 0.5, "warmup": 1}


def looping(path: Path, n: int) -> Path:
    """As many rounds of x + 1 as it says."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["v", "one"], ["w"])], "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )  # fmt: skip
    held = [numpy_helper.from_array(np.array(n, np.int64), "n"), numpy_helper.from_array(np.array(True), "yes")]
    held.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    graph = helper.make_graph(
        [node("Loop", ["n", "yes", "x"], ["y"], body=body)], "g", [value("x", TensorProto.FLOAT, ["N", "width"])],
        [value("y", TensorProto.FLOAT, None)], held,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_rounds_without_end_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_OPENING_S", 3.0)
    with pytest.raises(ModelError, match=r"one inference takes longer than --max-seconds 0\.5, and was ended"):
        bench([looping(tmp_path / "m.onnx", 2**62)], inputs=[parse_input("8")], **BRIEF)  # type: ignore[arg-type]


@pytest.mark.parametrize("said", ["8", "x:8"])
def test_twin_rounds_that_end_are_measured(tmp_path: Path, said: str) -> None:
    report = bench([looping(tmp_path / "m.onnx", 5)], inputs=[parse_input(said)], **BRIEF)  # type: ignore[arg-type]
    assert report.timings[0].median_s > 0


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only there a quotient stops a process")
def test_what_ends_its_process_is_told(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    held = [
        numpy_helper.from_array(np.array([number], np.int64), name) for name, number in (("a", -(2**63)), ("b", -1))
    ]
    nodes = [node("Mul", ["x", "none"], ["z"]), node("Add", ["z", "a"], ["low"]), node("Div", ["low", "b"], ["y"])]
    held.append(numpy_helper.from_array(np.array([0], np.int64), "none"))
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.INT64, ["N", 4])], [value("y", TensorProto.INT64, None)], held
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    why = trial.check_ends(path, path.stat().st_size, [], 2, 5.0)
    assert why is not None and "ends its process by signal" in why


def test_what_cannot_run_is_left_to_who_says_why(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"none")
    assert trial.check_ends(tmp_path / "m.onnx", 4, [], 1, 5.0) is None
