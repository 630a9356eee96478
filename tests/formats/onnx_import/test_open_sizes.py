"""Sizes that stay open although a file computes with them: as integers, as floats, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from compressor.program import InputSpec, Program
from tests.formats.onnx_import.building import imported, model_of, numbers

i64, node = np.int64, helper.make_node
CONSTANTS = {
    "w": numbers(4, 3, 3, 3), "at": np.array(2, i64), "last": np.array([3], i64), "zero": np.array([0], i64),
    "one": np.array([1], i64), "two": np.array([2.0], np.float32), "half": np.array([0.5], np.float32),
    "from": np.array(0, np.float32), "step": np.array(1, np.float32), "four": np.array([4], i64),
    "ones": np.array([1.0, 1.0], np.float32),
}  # fmt: skip
HEAD = [
    node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Shape", ["c"], ["shape"]),
    node("Gather", ["shape", "at"], ["h"]), node("Gather", ["shape", "last"], ["wide"]),
    node("Cast", ["h"], ["h_float"], to=TensorProto.FLOAT),
    node("Cast", ["wide"], ["wide_float"], to=TensorProto.FLOAT),
]  # fmt: skip
ROWS = [
    node("Unsqueeze", ["rows", "one"], ["rows_"]), node("Add", ["c", "rows_"], ["y"])
]  # fmt: skip
TAILS: dict[str, list[onnx.NodeProto]] = {
    "a range of floats": [node("Range", ["from", "h_float", "step"], ["rows"]), *ROWS],
    "a range shifted by a half": [
        node("Range", ["from", "h_float", "step"], ["r"]), node("Add", ["r", "half"], ["rows"]), *ROWS
    ],
    "twice the size": [
        node("Mul", ["wide_float", "two"], ["d"]), node("Floor", ["d"], ["f"]),
        node("Cast", ["f"], ["i"], to=TensorProto.INT64), node("Slice", ["shape", "zero", "last"], ["head"]),
        node("Concat", ["head", "i"], ["to"], axis=0), node("Resize", ["c", "", "", "to"], ["y"], mode="nearest"),
    ],
    "put together as floats": [
        node("Slice", ["shape", "zero", "last"], ["head"]), node("Cast", ["head"], ["head_f"], to=TensorProto.FLOAT),
        node("Add", ["wide_float", "two"], ["more"]), node("Sub", ["more", "two"], ["same"]),
        node("Concat", ["head_f", "same"], ["all_f"], axis=0), node("Ceil", ["all_f"], ["all_c"]),
        node("Cast", ["all_c"], ["to"], to=TensorProto.INT64),
        node("Resize", ["c", "", "", "to"], ["y"], mode="linear"),
    ],
    "a factor of values": [node("Mul", ["c", "wide_float"], ["y"])],
    "half of the size as a factor": [node("Mul", ["wide_float", "half"], ["f"]), node("Mul", ["c", "f"], ["y"])],
    "its inverse": [node("Div", ["two", "wide_float"], ["f"]), node("Mul", ["c", "f"], ["y"])],
    "its root": [node("Sqrt", ["h_float"], ["f"]), node("Div", ["c", "f"], ["y"])],
    "a float that goes out": [node("Concat", ["wide_float", "two"], ["y"], axis=0)],
    "a float that moves and goes out": [node("Unsqueeze", ["wide_float", "zero"], ["y"])],
}  # fmt: skip


def model(tail: list[onnx.NodeProto]) -> onnx.ModelProto:
    read = {name for n in (*HEAD, *tail) for name in n.input}
    held = {name: value for name, value in CONSTANTS.items() if name in read}
    return model_of([*HEAD, *tail], {"x": ("N", 3, "H", "W")}, held)


def outcome(program: Program, x: np.ndarray) -> Any:
    with torch.no_grad():
        return program.module(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("name", TAILS)
def test_sizes_stay_open_through_floats(name: str) -> None:
    made = model(TAILS[name])
    program = imported(made, [InputSpec("x", (None, 3, 8, 6))])
    assert not any("fixed" in note for note in program.record.notes), program.record.notes
    assert program.record.interface is not None and program.record.interface.has_open_sizes
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 8, 6), (3, 3, 11, 5), (2, 3, 5, 17)):
        x = numbers(*shape, seed=sum(shape))
        (theirs,) = session.run(None, {"x": x})
        ours = outcome(program, x)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_size_that_is_no_whole_number_is_fixed_and_said() -> None:
    tail = [
        node("Mul", ["wide_float", "half"], ["d"]), node("Floor", ["d"], ["f"]),
        node("Cast", ["f"], ["i"], to=TensorProto.INT64), node("Slice", ["shape", "zero", "last"], ["head"]),
        node("Concat", ["head", "i"], ["to"], axis=0), node("Resize", ["c", "", "", "to"], ["y"], mode="nearest"),
    ]  # fmt: skip
    program = imported(model(tail), [InputSpec("x", (None, 3, 8, 6))])
    assert any("sizes that the file leaves open are fixed" in note for note in program.record.notes)
    assert outcome(program, numbers(2, 3, 8, 6)).shape == (2, 4, 8, 3)
