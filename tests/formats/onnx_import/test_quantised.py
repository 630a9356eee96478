"""Quantised files in the form QDQ are read as the float networks that they stand for; the others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from compressor.errors import ModelError
from compressor.exporting.convert import quiet
from tests.formats.onnx_import.building import imported, model_of, numbers, outputs_of

node = helper.make_node


def network() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "k", "b"], ["a"], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["c"]),
        node("GlobalAveragePool", ["c"], ["g"]), node("Flatten", ["g"], ["f"]), node("MatMul", ["f", "w"], ["y"]),
    ]  # fmt: skip
    constants = {"k": numbers(8, 3, 3, 3), "b": numbers(8), "w": numbers(8, 5)}
    return model_of(nodes, {"x": ("N", 3, 8, 8)}, constants)


def quantised(folder: Path, form: str, per_channel: bool) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"x": numbers(4, 3, 8, 8, seed=seed)} for seed in range(3)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    onnx.save(network(), folder / "m.onnx")
    with quiet():
        quantize_static(
            folder / "m.onnx", folder / "q.onnx", Reader(), quant_format=QuantFormat[form], per_channel=per_channel
        )
    return folder / "q.onnx"


@pytest.mark.parametrize("per_channel", [False, True])
def test_steps_to_whole_numbers_and_back_are_left_out(tmp_path: Path, per_channel: bool) -> None:
    program = imported(onnx.load(quantised(tmp_path, "QDQ", per_channel)))
    assert sorted(p.numel() for p in program.parameters.values()) == [8, 40, 216]
    assert any("left out, what is pruned is the float network" in note for note in program.record.notes)
    x = program.example_inputs(4)
    (mine,) = outputs_of(program, x)
    wanted = ort.InferenceSession(str(tmp_path / "q.onnx"), providers=["CPUExecutionProvider"]).run(
        None, {"x": x[0].numpy()}
    )
    assert np.abs(mine.numpy() - wanted[0]).max() < 0.1 * np.abs(wanted[0]).max()
    dense = imported(network())
    for mine_, its in zip(program.parameters.values(), dense.parameters.values(), strict=True):
        assert 0 < (mine_ - its).abs().max() < 0.02 * its.abs().max()


def test_arithmetic_on_whole_numbers_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give the float model it was made from, or one quantised in the form QDQ"):
        imported(onnx.load(quantised(tmp_path, "QOperator", False)))


@pytest.mark.parametrize(
    ("attributes", "scales", "told"),
    [
        ({"axis": 0}, [0.1, 0.2, 0.3], "3 scales for 8 rows"),
        ({"block_size": 2, "axis": 0}, [0.1], "scale for every block"),
    ],
)
def test_scales_that_do_not_fit_are_refused(attributes: dict[str, Any], scales: list[float], told: str) -> None:
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"], **attributes), node("MatMul", ["x", "w"], ["y"])]
    constants = {"q": np.ones((8, 5), np.int8), "s": np.array(scales, np.float32)}
    with pytest.raises(ModelError, match=told):
        imported(model_of(nodes, {"x": ("N", 8)}, constants, opset=21))


def test_what_a_branch_reads_stays(tmp_path: Path) -> None:
    model = onnx.load(quantised(tmp_path, "QDQ", False))
    y = helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Mul", ["f2", "only_here"], ["t"])], "t", [], [y])
    model.graph.node.extend(
        [node("Identity", ["y"], ["f2"]), node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch)]
    )
    for name, value in (("only_here", np.float32(2)), ("yes", np.array(True))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    model.graph.output[0].name = "z"
    assert imported(model).n_parameters == 264
