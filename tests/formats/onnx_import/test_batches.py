"""What a file may do with its batch: every kind is right at every batch, keeps one batch and says so, or is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import ModelError
from compressor.formats import from_bytes, to_bytes
from compressor.program import InputSpec
from tests.formats.onnx_import.building import agrees, imported, model_of, numbers

node = helper.make_node
i64 = np.int64
Nodes = list[onnx.NodeProto]

BATCHES = (1, 2, 3, 4, 5, 7, 8, 16, 33)
START: Nodes = [
    node("Gemm", ["x", "w", "b"], ["h"], transB=1),
    node("Shape", ["x"], ["s"]),
    node("Gather", ["s", "#0"], ["n"], axis=0),
    node("Unsqueeze", ["n", "0"], ["n1"]),
]
"""h (n, 6), its batch n as a number, and n1 as a vector."""

FLOATS = {
    "w": numbers(6, 8), "b": numbers(6, seed=1), "row": numbers(1, 6, seed=2), "rows": numbers(3, 6, seed=3),
    "table": numbers(40, 6, seed=4), "f2": np.float32(2), "f3": np.float32(3), "half": np.float32(0.5),
}  # fmt: skip


def constant(name: str) -> np.ndarray:
    """`1,6` is a vector of integers, `#1` a lone one, anything else one of the tensors above."""
    if name.startswith("#"):
        return np.array(int(name[1:]), i64)
    return FLOATS[name] if name in FLOATS else np.array([int(part) for part in name.split(",")], i64)


def network(nodes: Sequence[onnx.NodeProto], *, batch: Any = "N", out: str = "float32") -> onnx.ModelProto:
    """A linear layer, and those nodes on its result, to the output y."""
    read, made = dict[str, None](), {"x"}
    for part in (*START, *nodes):
        read |= dict.fromkeys(part.input)
        made |= set(part.output)
    for branch in (attribute.g for part in nodes for attribute in part.attribute if attribute.type == 5):
        read |= {name: None for inner in branch.node for name in inner.input}
    held = {name: constant(name) for name in read if name and name not in made}
    return model_of([*START, *nodes], {"x": (batch, 8)}, held, dtypes={"y": out})


def cut(start: str, end: str, step: str = "1", before: Nodes | None = None) -> Nodes:
    return [*(before or []), node("Slice", ["h", start, end, "0", step], ["y"])]


def number(kind: str, *inputs: str, **attributes: Any) -> Nodes:
    """k, computed from the batch."""
    return [node(kind, list(inputs), ["k"], **attributes)]


ALL = str(2**62)
LAST = str(-(2**62))
OPEN: dict[str, Nodes] = {
    "the first 3": cut("0", "3"),
    "the first 20": cut("0", "20"),
    "the last 3": cut("-3", ALL),
    "without the first": cut("1", ALL),
    "without the last": cut("0", "-1"),
    "every other": cut("0", ALL, "2"),
    "every third from 1": cut("1", ALL, "3"),
    "backwards": cut("-1", LAST, "-1"),
    "every other backwards": cut("-1", LAST, "-2"),
    "the first half": cut("0", "k", before=number("Div", "n1", "2")),
    "the second half": cut("k", ALL, before=number("Div", "n1", "2")),
    "all but one": cut("0", "k", before=number("Sub", "n1", "1")),
    "n % 3": cut("0", "k", before=number("Mod", "n1", "3")),
    "n % 3 by the other sign": cut("0", "k", before=number("Mod", "n1", "3", fmod=1)),
    "at most 4": cut("0", "k", before=number("Min", "n1", "4")),
    "at least 2": cut("0", "k", before=number("Max", "n1", "2")),
    "between 2 and 4": cut("0", "k", before=number("Clip", "n1", "#2", "#4")),
    "n // 16": cut("0", "k", before=number("Div", "n1", "16")),
    "|n - 4|": cut("0", "k", before=[node("Sub", ["n1", "4"], ["m"]), *number("Abs", "m")]),
    "-n / 2": cut("k", ALL, before=[node("Neg", ["n1"], ["m"]), *number("Div", "m", "2")]),
    "(n - 5) / 2": cut("k", ALL, before=[node("Sub", ["n1", "5"], ["m"]), *number("Div", "m", "2")]),
    "chosen by n > 3": cut("0", "k", before=[node("Greater", ["n1", "3"], ["q"]), *number("Where", "q", "3", "n1")]),
    "its last sample": [*number("Sub", "n", "#1"), node("Gather", ["h", "k"], ["y"])],
    "sample 0": [node("Gather", ["h", "#0"], ["y"])],
    "sample -1": [node("Gather", ["h", "#-1"], ["y"])],
    "samples 0 and -1": [node("Gather", ["h", "0,-1"], ["y"])],
    "a range": [
        node("Range", ["#0", "n", "#1"], ["r"]), node("Cast", ["r"], ["f"], to=1), node("Unsqueeze", ["f", "1"], ["u"]),
        node("Mul", ["h", "u"], ["y"]),
    ],
    "a range with steps": [node("Range", ["#0", "n", "#2"], ["r"]), node("Gather", ["h", "r"], ["y"])],
    "a range down": [
        *number("Sub", "n", "#1"), node("Range", ["k", "#-1", "#-1"], ["r"]), node("Gather", ["h", "r"], ["y"]),
    ],
    "a range to the half": [
        *number("Div", "n", "#2"), node("Range", ["#0", "k", "#1"], ["r"]), node("Gather", ["h", "r"], ["y"]),
    ],
    "filled": [
        node("Concat", ["n1", "6"], ["z"], axis=0),
        node("ConstantOfShape", ["z"], ["c"], value=numpy_helper.from_array(np.array([0.5], np.float32))),
        node("Add", ["h", "c"], ["y"]),
    ],
    "expanded": [
        node("Concat", ["n1", "6"], ["z"], axis=0), node("Expand", ["row", "z"], ["c"]),
        node("Concat", ["h", "c"], ["y"], axis=1),
    ],
    "tiled": [
        node("Concat", ["n1", "1"], ["z"], axis=0), node("Tile", ["row", "z"], ["c"]), node("Add", ["h", "c"], ["y"]),
    ],
    "twice": [node("Tile", ["h", "2,1"], ["y"])],
    "of its own half": [
        *number("Mul", "n1", "2"), node("Concat", ["k", "-1"], ["z"], axis=0), node("Reshape", ["h", "z"], ["y"]),
    ],
    "rows of 3": [node("Reshape", ["h", "-1,3"], ["y"])],
    "keeping the size": [node("Reshape", ["h", "0,2,-1"], ["y"])],
    "the batch last": [node("Concat", ["-1", "n1"], ["z"], axis=0), node("Reshape", ["h", "z"], ["y"])],
    "two rows": [node("Reshape", ["h", "2,-1"], ["y"])],
    "flat": [node("Flatten", ["h"], ["y"], axis=0)],
    "one more": [node("Pad", ["h", "0,0,1,0"], ["y"])],
    "as a factor": [node("Cast", ["n"], ["f"], to=1), node("Mul", ["h", "f"], ["y"])],
    "as a divisor": [node("Cast", ["n"], ["f"], to=1), node("Div", ["h", "f"], ["y"])],
    "squared": [node("Mul", ["n", "n"], ["m"]), node("Cast", ["m"], ["f"], to=1), node("Add", ["h", "f"], ["y"])],
    "where n == 1": [
        node("Equal", ["n", "#1"], ["q"]), node("Where", ["q", "f2", "f3"], ["k"]), node("Mul", ["h", "k"], ["y"]),
    ],
    "where n > 4": [
        node("Greater", ["n", "#4"], ["q"]), node("Where", ["q", "f2", "f3"], ["k"]), node("Mul", ["h", "k"], ["y"]),
    ],
    "where n <= 16": [node("LessOrEqual", ["n", "#16"], ["q"]), node("Where", ["q", "h", "row"], ["y"])],
    "n == 1 as a number": [
        node("Equal", ["n", "#1"], ["q"]), node("Cast", ["q"], ["f"], to=1), node("Add", ["h", "f"], ["y"]),
    ],
    "not n == 1": [
        node("Equal", ["n", "#1"], ["q"]), node("Not", ["q"], ["o"]), node("Cast", ["o"], ["f"], to=1),
        node("Add", ["h", "f"], ["y"]),
    ],
    "the largest size": [
        node("Shape", ["h"], ["z"]), node("ReduceMax", ["z"], ["k"], keepdims=0), node("Cast", ["k"], ["f"], to=1),
        node("Mul", ["h", "f"], ["y"]),
    ],
    "the size of a slice": [
        node("Slice", ["h", "0", "3", "0"], ["c"]), node("Shape", ["c"], ["z"]), node("Gather", ["z", "#0"], ["k"]),
        node("Cast", ["k"], ["f"], to=1), node("Mul", ["h", "f"], ["y"]),
    ],
    "an identity matrix": [
        node("Transpose", ["h"], ["t"], perm=[1, 0]), node("MatMul", ["h", "t"], ["m"]), node("EyeLike", ["m"], ["e"]),
        node("MatMul", ["e", "h"], ["y"]),
    ],
    "a triangle": [
        node("Transpose", ["h"], ["t"], perm=[1, 0]), node("MatMul", ["h", "t"], ["m"]),
        node("Trilu", ["m"], ["y"], upper=0),
    ],
    "its mean": [node("ReduceMean", ["h"], ["m"], axes=[0]), node("Sub", ["h", "m"], ["y"])],
    "its softmax": [node("Softmax", ["h"], ["y"], axis=0)],
    "its running sum": [node("CumSum", ["h", "#0"], ["y"])],
    "beside rows": [node("Concat", ["h", "rows"], ["y"], axis=0)],
    "beside itself": [node("Concat", ["h", "h"], ["y"], axis=0)],
    "turned": [node("Transpose", ["h"], ["y"], perm=[1, 0])],
    "rows of a table": [node("Slice", ["table", "0", "n1", "0"], ["c"]), node("Add", ["h", "c"], ["y"])],
    "one row replaced": [node("ScatterND", ["h", "scattered", "row"], ["y"])],
}  # fmt: skip
FLOATS["scattered"] = np.array([[0]], i64)
"""Right at every batch, with an open batch."""

FEWER: dict[str, tuple[Nodes, tuple[int, ...]]] = {
    "samples 0 and 1": ([node("Gather", ["h", "0,1"], ["y"])], (2, 3, 5)),
    "sample 1": ([node("Gather", ["h", "#1"], ["y"])], (2, 3, 5)),
    "the 2 largest": ([node("TopK", ["h", "2"], ["y", "i"], axis=0)], (2, 3, 5)),
    "two equal parts": ([node("Split", ["h"], ["u", "v"], axis=0), node("Sub", ["u", "v"], ["y"])], (2, 4, 8)),
}
"""The same where the file itself takes only some batches: the program takes no other either."""


def branch(name: str, factor: str) -> onnx.GraphProto:
    made = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([node("Mul", ["h", factor], [name])], name, [], [made])


def test_a_batch_may_be_computed_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table below says nothing if a size that is the same at all trials by accident were a number."""
    monkeypatch.setattr("compressor.formats.onnx_import.attempts._TRIALS", ((2, 3),))
    program = imported(network(OPEN["the first half"]))
    assert not program.has_dynamic_batch
    assert "Slice y: at batch 1 it differs from onnxruntime" in " ".join(program.record.notes)


@pytest.mark.parametrize("kind", OPEN)
def test_batch_arithmetic_is_right_at_every_batch(kind: str) -> None:
    program = agrees(network(OPEN[kind]), batches=BATCHES, tolerance=1e-4)
    assert program.has_dynamic_batch
    assert program.record.notes[1:] == ("agrees with the file in onnxruntime at batches 1, 2, 3, 5, 8",)
    assert from_bytes(to_bytes(program)).shapes == program.traced


@pytest.mark.parametrize("kind", FEWER)
def test_where_the_file_takes_no_other_batch_the_program_does_not_either(kind: str) -> None:
    nodes, batches = FEWER[kind]
    program = agrees(network(nodes), batches=batches)
    assert program.has_dynamic_batch
    assert "onnxruntime cannot run it" in program.record.notes[-1]
    with pytest.raises(ModelError):
        program.module(*program.example_inputs(1))


@pytest.mark.parametrize(("dtype", "to"), [("int64", None), ("int32", TensorProto.INT32)])
def test_the_batch_itself_may_go_out(dtype: str, to: int | None) -> None:
    last = node("Identity", ["n"], ["y"]) if to is None else node("Cast", ["n"], ["y"], to=to)
    assert agrees(network([last], out=dtype), batches=BATCHES).has_dynamic_batch


@pytest.mark.parametrize("condition", [("Equal", "#1"), ("Greater", "#4"), ("Less", "#100")])
def test_a_branch_on_the_batch_is_refused_with_the_way_on(condition: tuple[str, str]) -> None:
    kind, bound = condition
    nodes = [
        node(kind, ["n", bound], ["q"]),
        node("If", ["q"], ["y"], name="/if", then_branch=branch("t", "f2"), else_branch=branch("e", "f3")),
    ]
    with pytest.raises(ModelError, match="If /if: which of two networks this is depends on the batch size") as error:
        imported(network(nodes))
    assert "make_dynamic_shape_fixed --input_name x --input_shape 1,8" in str(error.value)
    fixed = agrees(network(nodes, batch=1), batches=(1,))
    assert (fixed.inputs[0].shape[0] is None) == (kind == "Less")


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([node("Reshape", ["h", "0,1,6"], ["r"]), node("Squeeze", ["r"], ["y"])], "squeezes every dimension of size 1"),
        ([node("Cast", ["n"], ["f"], to=1), node("Mul", ["f", "half"], ["g"]), node("Cast", ["g"], ["k0"], to=7),
          node("Unsqueeze", ["k0", "0"], ["k"]), *cut("0", "k")], "computed from the network's own values"),
        ([node("Add", ["h", "rows"], ["y"])], "does not fit its inputs"),
    ],
    ids=["squeeze", "through floats", "three rows"],
)  # fmt: skip
def test_what_no_program_can_say_for_every_batch_keeps_one_and_says_why(nodes: Nodes, told: str) -> None:
    program = agrees(network(nodes))
    assert program.inputs[0].shape == (1, 8)
    assert (
        program.record.notes[1].startswith("imported with the batch fixed at 1: ") and told in program.record.notes[1]
    )
    assert program.record.notes[2] == "agrees with the file in onnxruntime at batch 1"


def test_parts_that_no_batch_of_one_has_are_refused() -> None:
    with pytest.raises(ModelError, match="split_with_sizes expects split_sizes to sum exactly"):
        imported(network([node("Split", ["h", "1,2"], ["u", "y"], axis=0)]))


@pytest.mark.parametrize("weak", [1.0, 1e-3])
def test_a_fixed_batch_is_not_opened_if_samples_look_at_each_other(weak: float) -> None:
    """Even a little: the file itself is run on each sample alone."""
    nodes = [
        node("ReduceMean", ["h"], ["m"], axes=[0]), node("Mul", ["m", "share"], ["k"]), node("Add", ["h", "k"], ["y"]),
    ]  # fmt: skip
    FLOATS["share"] = np.float32(weak)
    program = agrees(network(nodes, batch=1))
    assert program.inputs[0].shape == (1, 8)
    assert "depend on the others in its batch" in program.record.notes[1]


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_an_opened_batch_is_compared_in_parts_of_what_the_file_takes(batch: int) -> None:
    program = agrees(network([node("Relu", ["h"], ["y"])], batch=batch), batches=(batch,))
    assert program.has_dynamic_batch
    sizes = f"{batch}, {2 * batch}, {3 * batch}"
    assert program.record.notes[1:] == (
        f"the file fixes the batch at {batch}; it was opened",
        f"agrees with the file in onnxruntime at batches {sizes}, {batch} at a time",
    )


def test_inputs_whose_first_sizes_differ_keep_them() -> None:
    """A temperature of shape [1] beside an open batch is no sample."""
    model = model_of([node("Mul", ["a", "b"], ["y"])], {"a": ("N", 4), "b": (3, 4)})
    program = imported(model)
    assert [spec.shape for spec in program.inputs] == [(1, 4), (3, 4)]
    assert "the first sizes of its inputs differ (a open, b 3)" in program.record.notes[1]
    assert program.module(*program.example_inputs(1)).shape == (3, 4)


def test_a_size_that_the_user_gives_does_not_open_the_batch() -> None:
    program = imported(network([node("ReduceMax", ["h"], ["y"], axes=[0])], batch=5), [InputSpec("x", (None, 8))])
    assert program.inputs[0].shape == (5, 8)


def test_a_single_number_that_goes_in_is_refused() -> None:
    model = model_of([node("Mul", ["a", "b"], ["y"])], {"a": ("N", 4), "b": ()})
    with pytest.raises(ModelError, match="its input b is a single number, without a batch"):
        imported(model)
