"""ONNX files that lie: cycles, weights elsewhere, shapes without end, operators that are none."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.formats import load

FLOAT = TensorProto.FLOAT


def model(nodes: list[Any], initializers: list[Any] = (), *, shape: Any = ("N", 3), **options: Any) -> Any:  # type: ignore[assignment]
    x = helper.make_tensor_value_info("x", options.pop("dtype", FLOAT), list(shape))
    y = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", options.pop("opset", 17))], **options)


def tensor(name: str, *sizes: int, value: float = 1.0) -> Any:
    return numpy_helper.from_array(np.full(sizes, value, np.float32), name)


def external(location: str, **more: str) -> Any:
    """A weight of 12 bytes that lies in another file."""
    found = TensorProto(name="w", data_type=FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        found.external_data.add(key=key, value=value)
    return found


def add() -> list[Any]:
    return [helper.make_node("Add", ["x", "w"], ["y"])]


def declared(dims: list[int], raw: bytes = b"") -> Any:
    return TensorProto(name="w", data_type=FLOAT, dims=dims, raw_data=raw)


node = helper.make_node
CASES: dict[str, Callable[[], Any]] = {
    "weights at a path upwards": lambda: model(add(), [external("../../secret")]),
    "weights at a path from the root": lambda: model(add(), [external("/etc/passwd")]),
    "weights at a path that turns": lambda: model(add(), [external("a/../../../secret")]),
    "weights in a device": lambda: model(add(), [external("/dev/zero", length="99999999999")]),
    "weights behind a link": lambda: model(add(), [external("link")]),
    "weights in a file that is not there": lambda: model(add(), [external("none.bin")]),
    "weights in a directory": lambda: model(add(), [external(".")]),
    "weights without a place": lambda: model(add(), [external("")]),
    "weights at a null character": lambda: model(add(), [external("a\0b")]),
    "weights beyond the end": lambda: model(add(), [external("beside.bin", offset="99999")]),
    "weights before the start": lambda: model(add(), [external("beside.bin", offset="-4")]),
    "weights at no number": lambda: model(add(), [external("beside.bin", offset="many")]),
    "weights too short": lambda: model(add(), [external("beside.bin", length="4")]),
    "an operator that is none": lambda: model([node("Frobnicate", ["x"], ["y"])]),
    "an operator of strangers": lambda: model([node("Run", ["x"], ["y"], domain="evil")]),
    "a function call": lambda: model([node("PyOp", ["x"], ["y"], domain="ai.onnx.contrib", code="import os")]),
    "a value from nowhere": lambda: model([node("Add", ["x", "z"], ["y"])]),
    "a ring": lambda: model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]),
    "a value of itself": lambda: model([node("Relu", ["y"], ["y"])]),
    "a name twice": lambda: model([node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"])]),
    "no output": lambda: model([node("Relu", ["x"], ["z"])]),
    "no nodes": lambda: model([]),
    "too few inputs": lambda: model([node("Add", ["x"], ["y"])]),
    "a loop": lambda: model([node("Loop", ["", "", "x"], ["y"])]),
    "a shape without end": lambda: model(add(), [declared([2**40, 2**20])]),
    "a shape below zero": lambda: model(add(), [declared([-3])]),
    "more bytes than the shape": lambda: model(add(), [declared([3], bytes(999))]),
    "fewer bytes than the shape": lambda: model(add(), [declared([3], bytes(5))]),
    "a type that is none": lambda: model(add(), [TensorProto(name="w", data_type=99, dims=[3], raw_data=bytes(12))]),
    "texts for weights": lambda: model(
        add(), [TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], string_data=[b"a"])]
    ),
    "NaN": lambda: model([node("MatMul", ["x", "w"], ["y"])], [tensor("w", 3, 3, value=float("nan"))]),
    "infinity": lambda: model([node("MatMul", ["x", "w"], ["y"])], [tensor("w", 3, 3, value=float("inf"))]),
    "sizes that do not fit": lambda: model([node("MatMul", ["x", "w"], ["y"])], [tensor("w", 7, 3)]),
    "an input without end": lambda: model([node("Relu", ["x"], ["y"])], shape=("N", 2**40, 2**20)),
    "an input of texts": lambda: model([node("Identity", ["x"], ["y"])], dtype=TensorProto.STRING),
    "an opset to come": lambda: model([node("Relu", ["x"], ["y"])], opset=9999),
    "an opset before time": lambda: model([node("Relu", ["x"], ["y"])], opset=0),
    "a constant without end": lambda: model(
        [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
        [numpy_helper.from_array(np.array([2**50], np.int64), "s")],
    ),
    "a range without end": lambda: model(
        [node("Range", ["a", "b", "c"], ["r"]), node("Add", ["x", "r"], ["y"])],
        [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in (("a", 0), ("b", 2**60), ("c", 1))],
    ),
    "a tile without end": lambda: model(
        [node("Tile", ["x", "s"], ["y"])], [numpy_helper.from_array(np.array([2**20, 2**40], np.int64), "s")]
    ),
    "a convolution of no dimensions": lambda: model([node("Conv", ["x", "w"], ["y"])], [tensor("w", 3)]),
    "negative groups": lambda: model(
        [node("Conv", ["x", "w"], ["y"], group=-2)], [tensor("w", 4, 3, 3, 3)], shape=("N", 3, 8, 8)
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_a_model_that_lies_is_refused(refused: Any, folder: Path, what: str) -> None:
    (folder.parent.parent / "a" / "b" / "beside.bin").write_bytes(bytes(12))
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "m.onnx").write_bytes(CASES[what]().SerializeToString())
    refused(load, "m.onnx")


@pytest.mark.parametrize("share", [i / 12 for i in range(12)])
def test_a_model_that_was_cut_off(refused: Any, folder: Path, share: float) -> None:
    whole = model([node("MatMul", ["x", "w"], ["y"])], [tensor("w", 3, 50)]).SerializeToString()
    (folder / "m.onnx").write_bytes(whole[: int(len(whole) * share)])
    refused(load, "m.onnx")


def test_from_a_stream_no_file_is_read(refused: Any, folder: Path) -> None:
    (folder / "beside.bin").write_bytes(bytes(12))
    content = model(add(), [external("beside.bin")]).SerializeToString()
    refused(load, io.BytesIO(content))


def test_twin_a_sound_model_and_its_weights_beside_it_are_read(folder: Path) -> None:
    sound = model([node("MatMul", ["x", "w"], ["y"])], [tensor("w", 3, 5)])
    onnx.save(sound, folder / "m.onnx", save_as_external_data=True, location="beside.bin", size_threshold=0)
    assert load("m.onnx").n_parameters == 15
