"""ONNX files that ask for more than anything has: memory, nodes, time, quotients that stop a process.

They are read in a process of their own, which must come to the end of the list: a small file may not end it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[2]
node = helper.make_node
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
LOWEST = -(2**63)
_MOST_MIB = 2500
"""What reading them all may take beyond torch itself; a single one took 6,500 and 8,500 once."""


def held(name: str, *values: int, shape: tuple[int, ...] | None = None) -> TensorProto:
    array = np.array(values, np.int64)
    return numpy_helper.from_array(array.reshape(array.shape if shape is None else shape), name)


def model(
    nodes: list[Any], constants: list[Any] = (), *, shape: Any = ("N", 4), kind: int = FLOAT, out: int = FLOAT,  # type: ignore[assignment]
    **more: Any,
) -> onnx.ModelProto:  # fmt: skip
    x, y = helper.make_tensor_value_info("x", kind, list(shape)), helper.make_tensor_value_info("y", out, None)
    sparse = more.pop("sparse", [])
    graph = helper.make_graph(nodes, "g", [x], [y], list(constants), sparse_initializer=sparse)
    domains = [helper.make_opsetid("", more.pop("opset", 17)), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8, **more)


def filled(n: int, *sizes: int) -> list[Any]:
    """Constants c0 … of so many elements, each from its own shape of a few bytes."""
    return [node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(n)]


def as_a_shape(n: int) -> onnx.ModelProto:
    whole = numpy_helper.from_array(np.array([1], np.int64), "v")
    nodes = [node("ConstantOfShape", ["s"], ["c"], value=whole), node("Reshape", ["x", "c"], ["y"])]
    return model(nodes, [held("s", n)])


def many_constants() -> onnx.ModelProto:
    sums = [node("Sum", ["x", *(f"r{i}" for i in range(40))], ["y"])]
    reduced = [node("ReduceMax", [f"c{i}"], [f"r{i}"]) for i in range(40)]
    return model([*filled(40), *reduced, *sums], [held("s", 2**27)])


def read_often() -> onnx.ModelProto:
    """A constant of which every reader gets a copy."""
    nodes = [node("ConstantOfShape", ["s"], ["c"])]
    nodes += [node("Gather", ["c", f"i{i}"], [f"g{i}"]) for i in range(24)]
    nodes += [node("Cast", ["x"], [f"i{i}"], to=INT64) for i in range(24)][::-1]
    nodes = [*nodes[25:], *nodes[:25], node("Sum", [f"g{i}" for i in range(24)], ["y"])]
    return model(nodes, [held("s", 2**26, 1)])


def nested(depth: int, last: str = "NonZero") -> onnx.ModelProto:
    def branch(level: int) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(f"b{level}", FLOAT, None)
        inner = [node("Relu", ["x"], [f"b{level}"])]
        if level < depth:
            inner = [node("If", ["yes"], [f"b{level}"], then_branch=branch(level + 1), else_branch=tiny(level))]
        return helper.make_graph(inner, f"g{level}", [], [made])

    def tiny(level: int) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(f"e{level}", FLOAT, None)
        return helper.make_graph([node("Abs", ["x"], [f"e{level}"])], f"e{level}", [], [made])

    outer = node("If", ["yes"], ["z"], then_branch=branch(0), else_branch=tiny(99))
    return model([outer, node(last, ["z"], ["y"])], [numpy_helper.from_array(np.array(True), "yes")])


def doubling(levels: int, *, circle: bool = False, times: int = 2) -> onnx.ModelProto:
    functions = []
    for level in range(levels):
        called = f"f{level + 1}" if level + 1 < levels else "f0" if circle else None
        calls = [node("Relu", ["a"], ["b"]), node("Abs", ["b"], ["c"])]
        for call in calls[:times] if called else ():
            call.op_type, call.domain = called, "own"
        functions.append(
            helper.make_function("own", f"f{level}", ["a"], ["c"], calls,
                                 [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])
        )  # fmt: skip
    return model([node("f0", ["x"], ["y"], domain="own")], functions=functions)


def sparse(*dims: int) -> onnx.ModelProto:
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    made = onnx.SparseTensorProto(values=values, indices=held("i", 0), dims=list(dims))
    return model([node("ReduceMax", ["w"], ["r"]), node("Add", ["x", "r"], ["y"])], sparse=[made])


def products() -> onnx.ModelProto:
    """Small constants that make larger ones, which are multiplied: 2^39 products out of 300 bytes."""
    nodes = [node("ConstantOfShape", ["s"], ["a"]), node("MatMul", ["a", "a"], ["b"]), node("ReduceMax", ["b"], ["m"])]
    return model([*nodes, node("Add", ["x", "m"], ["y"])], [held("s", 2**13, 2**13)])


def stretched(*nodes: Any) -> onnx.ModelProto:
    return model(
        [*nodes[1:], node("Expand", ["x", "s"], ["h"]), nodes[0]], [held("s", 1, 2, 2**31, 1)], shape=("N", 1, 1, 1)
    )


def quotient(kind: str, left: str, right: str, *, data: int = INT64) -> onnx.ModelProto:
    return model([node(kind, [left, right], ["y"])], [held("low", *[LOWEST] * 4), held("minus", *[-1] * 4)],
                 kind=data, out=INT64)  # fmt: skip


def zeroed(kind: str) -> onnx.ModelProto:
    nodes = [node(kind, ["low", "minus"], ["q"]), node("Cast", ["q"], ["f"], to=FLOAT), node("Add", ["x", "f"], ["y"])]
    return model(nodes, [held("low", *[LOWEST] * 4), held("minus", *[-1] * 4)])


def impossible(*dims: int) -> onnx.ModelProto:
    return model([node("Add", ["x", "w"], ["y"])], [TensorProto(name="w", data_type=FLOAT, dims=list(dims))])


REFUSED: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "a shape of 2^28 entries": lambda: as_a_shape(2**28),
    "a shape of 2^24 entries": lambda: as_a_shape(2**24),
    "40 constants of 2^27 elements": many_constants,
    "a constant that every reader copies": read_often,
    "functions that call each other twice": lambda: doubling(40),
    "functions that call each other 5,000 deep": lambda: doubling(5000, times=1),
    "functions in a circle": lambda: doubling(3, circle=True),
    "conditions in conditions": lambda: nested(24),
    "a sparse tensor of 2^31": lambda: sparse(2**31),
    "a sparse tensor of 2^62": lambda: sparse(2**31, 2**31),
    "two sparse tensors of 2^28 elements": lambda: sparse(2**29),
    "products of constants": products,
    "a size of 2^62": lambda: impossible(2**62),
    "a size of 2^62 beside none": lambda: impossible(2**62, 0),
    "an input of 2^62": lambda: model([node("Relu", ["x"], ["y"])], shape=("N", 2**62)),
    "a value stretched to 2^62": lambda: model(
        [node("Expand", ["x", "s"], ["y"])], [held("s", 1, 2**62, 4)], shape=("N", 1, 4)),
    "a value tiled to 2^62": lambda: model([node("Tile", ["x", "s"], ["y"])], [held("s", 1, 2**60)]),
    "a resize to 2^40": lambda: model(
        [node("Resize", ["x", "", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="asymmetric")],
        [held("s", 1, 1, 2**40, 4)], shape=("N", 1, 4, 4)),
    "a resize of a stretched value": lambda: stretched(
        node("Resize", ["h", "", "f"], ["y"], mode="nearest"),
        node("Constant", [], ["f"], value=numpy_helper.from_array(np.float32([1, 1, 0.5, 1])))),
    "a pad of 2^40": lambda: model([node("Pad", ["x", "s"], ["y"], mode="edge")], [held("s", 0, 2**40, 0, 0)]),
    "a pad of 2^62": lambda: model([node("Pad", ["x", "s"], ["y"])], [held("s", 0, 2**62, 0, 0)]),
    "2^62 parts": lambda: model([node("Split", ["x"], ["y"], axis=1, num_outputs=2**62)], opset=18),
    "2^40 steps": lambda: model(
        [node("Range", ["a", "b", "c"], ["r"]), node("Add", ["x", "r"], ["y"])],
        [held("a", 0, shape=()), held("b", 2**40, shape=()), held("c", 1, shape=())], kind=INT64, out=INT64),
    "the largest k of 2^40": lambda: model(
        [node("TopK", ["x", "k"], ["y", "i"])], [held("k", 2**40)]),
}  # fmt: skip
READ: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "the smallest number by -1, both fixed": lambda: zeroed("Div"),
    "what is left of the smallest number by -1": lambda: zeroed("Mod"),
    "the smallest number by what goes in": lambda: quotient("Div", "low", "x"),
    "what goes in by -1": lambda: quotient("Div", "x", "minus"),
    "what is left of what goes in by -1": lambda: quotient("Mod", "x", "minus"),
    "conditions in conditions that are known": lambda: nested(24, last="Relu"),
    "three levels of functions": lambda: doubling(3),
}
"""They are ordinary, or may be: what counts is that they end nothing."""

_READER = """
import json, resource, sys, pathlib, torch
from compressor.errors import CompressError, ModelError
from compressor.formats import load
def mib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = mib()
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    print(json.dumps({"begins": path.stem}), flush=True)
    try:
        load(path)
        found = ""
    except CompressError as error:
        found = f"{'ModelError' if isinstance(error, ModelError) else type(error).__name__}: {error}"
    print(json.dumps({"name": path.stem, "found": found, "mib": mib() - before}), flush=True)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of every file, by its name; `last` is the one that was being read at the end."""
    folder = tmp_path_factory.mktemp("files")
    for name, make in {**REFUSED, **READ}.items():
        (folder / f"{name}.onnx").write_bytes(make().SerializeToString())
    command = [sys.executable, "-c", _READER, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    results = {line["name"]: line for line in lines if "name" in line}
    return {"code": done.returncode, "last": [line["begins"] for line in lines if "begins" in line][-1:], **results}


def test_no_file_ends_the_process(found: dict[str, Any]) -> None:
    assert found["code"] == 0, found["last"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_asks_for_too_much_is_refused(found: dict[str, Any], name: str) -> None:
    told = found[name]["found"]
    assert told.startswith("ModelError: ") and "report" not in told and told.count("\n") <= 2
    assert found[name]["mib"] < _MOST_MIB


@pytest.mark.parametrize("name", READ)
def test_twin_what_is_ordinary_is_read(found: dict[str, Any], name: str) -> None:
    assert found[name]["found"] == ""


def test_small_files_are_meant() -> None:
    assert max(len(make().SerializeToString()) for make in REFUSED.values()) < 1_000_000
