"""Whole small graphs: shape arithmetic, batches, constants and layers that several nodes make up."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import ModelError, UsageError
from compressor.exporting import export_onnx
from compressor.formats import from_bytes, to_bytes
from compressor.program import InputSpec, find_layers
from tests.formats.onnx_import.building import agrees, imported, model_of, numbers

node = helper.make_node
i64 = np.int64


def test_a_shape_that_is_computed_keeps_the_batch_open() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "first"], ["n1"]),
        node("Concat", ["n1", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants = {"zero": np.array(0, i64), "first": np.array([0], i64), "rest": np.array([-1], i64)}
    program = agrees(model_of(nodes, {"x": ("N", 4, 3, 2)}, constants))
    assert program.has_dynamic_batch
    assert [n.target for n in program.module.graph.nodes if n.op == "call_function"] == [torch.ops.aten.reshape.default]


def test_arithmetic_with_the_batch_stays_in_the_graph() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "zero", "one"], ["n"]),
        node("Mul", ["n", "four"], ["n4"]),
        node("Div", ["n4", "two"], ["n2"]),
        node("Concat", ["n2", "n", "more"], ["shape"], axis=0),
        node("Expand", ["k", "shape"], ["e"]),
        node("ReduceMean", ["e"], ["m"], axes=[0, 1], keepdims=0),
        node("Add", ["x", "m"], ["y"]),
    ]
    constants = {
        "zero": np.array([0], i64), "one": np.array([1], i64), "four": np.array([4], i64), "two": np.array([2], i64),
        "more": np.array([1, 5], i64), "k": numbers(5),
    }  # fmt: skip
    assert agrees(model_of(nodes, {"x": ("N", 5)}, constants)).has_dynamic_batch


def test_the_expand_that_torchscript_writes_is_decided_while_importing() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "first"], ["n1"]),
        node("Concat", ["n1", "minus", "minus"], ["wanted"], axis=0),
        node("ConstantOfShape", ["three"], ["ones"], value=numpy_helper.from_array(np.array([1], i64))),
        node("Mul", ["ones", "minus"], ["minuses"]),
        node("Equal", ["wanted", "minuses"], ["open"]),
        node("Where", ["open", "ones", "wanted"], ["shape"]),
        node("Expand", ["token", "shape"], ["tokens"]),
        node("Concat", ["tokens", "x"], ["y"], axis=1),
    ]
    constants = {
        "zero": np.array(0, i64), "first": np.array([0], i64), "minus": np.array([-1], i64),
        "three": np.array([3], i64), "token": numbers(1, 1, 6),
    }  # fmt: skip
    program = agrees(model_of(nodes, {"x": ("N", 4, 6)}, constants))
    assert list(program.parameters) == ["token"]


def test_a_batch_that_the_file_fixes_is_opened_where_the_graph_allows_it() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Reshape", ["c", "shape"], ["f"]),
        node("Gemm", ["f", "v"], ["y"]),
    ]
    constants = {"w": numbers(3, 2, 3, 3), "shape": np.array([1, -1], i64), "v": numbers(3 * 4, 5)}
    program = imported(model_of(nodes, {"x": (1, 2, 4, 4)}, constants))
    assert program.has_dynamic_batch
    assert "it was opened" in " ".join(program.record.notes)
    x = torch.randn(3, 2, 4, 4)
    both, alone = program.module(x), torch.cat([program.module(part) for part in x.split(1)])
    torch.testing.assert_close(both, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([node("ReduceMean", ["x"], ["m"], axes=[0]), node("Sub", ["x", "m"], ["y"])], id="mixes samples"),
        pytest.param([node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Reshape", ["t", "s"], ["y"])], id="reshape"),
    ],
)
def test_a_batch_that_cannot_be_opened_stays_and_is_noted(nodes: Sequence[onnx.NodeProto]) -> None:
    program = agrees(model_of(nodes, {"x": (2, 6)}, {"s": np.array([4, 3], i64)}))
    assert program.inputs[0].shape == (2, 6)
    assert "batch fixed at 2" in " ".join(program.record.notes)
    assert from_bytes(to_bytes(program)).inputs[0].shape == (2, 6)


def test_a_token_beside_samples_is_repeated_when_the_batch_is_opened() -> None:
    program = imported(model_of([node("Concat", ["t", "x"], ["y"], axis=1)], {"x": (1, 4, 6)}, {"t": numbers(1, 1, 6)}))
    assert program.has_dynamic_batch
    assert program.module(torch.zeros(3, 4, 6)).shape == (3, 5, 6)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_product_and_its_bias_are_one_linear_layer(swapped: bool) -> None:
    inputs = ["b", "m"] if swapped else ["m", "b"]
    nodes = [node("MatMul", ["x", "fc.weight"], ["m"], name="/fc/MatMul"), node("Add", inputs, ["y"])]
    program = agrees(model_of(nodes, {"x": ("N", 5, 4)}, {"fc.weight": numbers(4, 3), "b": numbers(3, seed=1)}))
    (layer,) = find_layers(program)
    assert (layer.kind, layer.name, len(layer.tensors)) == ("linear", "fc", 2)
    assert program.parameters["fc.weight"].shape == (3, 4)


def test_a_product_that_is_read_twice_keeps_its_bias_apart() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["a"]), node("Mul", ["a", "m"], ["y"]),
    ]  # fmt: skip
    program = agrees(model_of(nodes, {"x": ("N", 4)}, {"w": numbers(4, 3), "b": numbers(3)}))
    assert [layer.kind for layer in find_layers(program)] == ["linear", "parameter"]


def test_weights_in_constant_nodes_are_parameters() -> None:
    nodes = [
        node("Constant", [], ["w"], value=numpy_helper.from_array(numbers(3, 4, 1, 1))),
        node("Constant", [], ["s"], value=numpy_helper.from_array(numbers(3, 1, 1))),
        node("Conv", ["x", "w"], ["c"]),
        node("Mul", ["c", "s"], ["y"]),
    ]
    program = agrees(model_of(nodes, {"x": ("N", 4, 2, 2)}))
    assert {p.numel() for p in program.parameters.values()} == {12, 3}


def test_numbers_that_an_exporter_wrote_down_are_no_parameters() -> None:
    mask = np.zeros((4, 4), np.float32)
    mask[0, 1] = -100
    nodes = [
        node("Mul", ["x", "scale"], ["a"]), node("Add", ["a", "mask"], ["b"]), node("MatMul", ["b", "w"], ["y"]),
    ]  # fmt: skip
    program = agrees(model_of(nodes, {"x": ("N", 4, 4)}, {"scale": np.float32(0.5), "mask": mask, "w": numbers(4, 2)}))
    assert len(program.parameters) == 1
    assert len(dict(program.module.named_buffers())) == 1


@pytest.mark.parametrize(
    ("values", "learned"),
    [
        (np.repeat(np.array([8, 16, 32], np.float32), 2), False),
        (np.arange(6, dtype=np.float32) + 0.5, False),
        (np.array([1.25, 1.625, 2, 3.75, 4.125, 2.875], np.float32), False),
        (np.ones(6, np.float32), True),
        (numbers(6), True),
    ],
    ids=["strides", "centres of cells", "anchors in cells", "a scale that starts at 1", "trained"],
)
def test_strides_and_positions_are_not_learned(values: np.ndarray, learned: bool) -> None:
    program = agrees(model_of([node("Mul", ["x", "head.grid"], ["y"])], {"x": ("N", 6)}, {"head.grid": values}))
    assert list(program.parameters) == (["head.grid"] if learned else [])


def test_a_learned_number_that_kept_its_name_stays_a_parameter() -> None:
    program = agrees(model_of([node("Mul", ["x", "head.scale"], ["y"])], {"x": ("N", 4)}, {"head.scale": numbers(1)}))
    assert list(program.parameters) == ["head.scale"]


@pytest.mark.parametrize(("value", "n_expected"), [(np.zeros(4, np.float32), 2), (numbers(4), 1)])
def test_a_shared_tensor_is_tied_only_where_its_elements_differ(value: np.ndarray, n_expected: int) -> None:
    """Zero biases are equal by accident, and exporters store them once; equal trained tensors are one."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], name="/first/Conv"),
        node("Conv", ["c", "v", "b"], ["y"], name="/second/Conv"),
    ]
    constants = {"w": numbers(4, 4, 1, 1), "v": numbers(4, 4, 1, 1, seed=1), "b": value}
    program = agrees(model_of(nodes, {"x": ("N", 4, 2, 2)}, constants))
    assert len(program.parameters) == 2 + n_expected


def test_an_embedding_and_a_classifier_that_share_a_matrix_stay_tied() -> None:
    nodes = [
        node("Gather", ["table.weight", "x"], ["e"]),
        node("Transpose", ["table.weight"], ["t"], perm=[1, 0]),
        node("MatMul", ["e", "t"], ["y"]),
    ]
    program = agrees(
        model_of(nodes, {"x": ("N", 3)}, {"table.weight": numbers(7, 4)}, dtypes={"x": "int64"}), batches=(1, 2)
    )
    assert list(program.parameters) == ["table.weight"]
    assert [layer.kind for layer in find_layers(program)] == ["embedding", "linear"]


def test_initializers_may_be_listed_as_inputs_as_old_files_do() -> None:
    constants = {"w": numbers(4, 2), "b": numbers(2)}
    model = model_of([node("Gemm", ["x", "w", "b"], ["y"])], {"x": ("N", 4)}, constants, opset=9)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 2]))
    assert [spec.name for spec in agrees(model).inputs] == ["x"]


def test_several_inputs_and_outputs_keep_their_names() -> None:
    nodes = [node("Add", ["a", "b"], ["sum"]), node("Sub", ["a", "b"], ["difference"])]
    program = agrees(model_of(nodes, {"a": ("N", 4), "b": ("N", 4)}, outputs=("sum", "difference")))
    assert [spec.name for spec in program.inputs] == ["a", "b"]
    assert list(program.module(torch.ones(1, 4), torch.ones(1, 4))) == ["sum", "difference"]


def test_inputs_keep_names_that_no_variable_can_have() -> None:
    nodes = [node("Add", ["input", "input.1"], ["a"]), node("Add", ["a", "for:0"], ["y"])]
    program = agrees(model_of(nodes, dict.fromkeys(("input", "input.1", "for:0"), ("N", 4))))
    names = ["input", "input.1", "for:0"]
    again = from_bytes(to_bytes(program))
    assert [spec.name for spec in program.inputs] == [spec.name for spec in again.inputs] == names
    buffer = io.BytesIO()
    export_onnx(again, buffer, batch_sizes=(2,))
    assert [value.name for value in onnx.load_from_string(buffer.getvalue()).graph.input] == names


def test_a_known_branch_is_taken_while_importing() -> None:
    then = helper.make_graph([node("Squeeze", ["x", "axis"], ["t"])], "then", [], [
        helper.make_tensor_value_info("t", TensorProto.FLOAT, None)])  # fmt: skip
    other = helper.make_graph([node("Identity", ["x"], ["e"])], "else", [], [
        helper.make_tensor_value_info("e", TensorProto.FLOAT, None)])  # fmt: skip
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "one"], ["c"], axis=0), node("Equal", ["c", "one"], ["is"]),
        node("If", ["is"], ["y"], then_branch=then, else_branch=other),
    ]  # fmt: skip
    constants = {"one": np.array(1, i64), "axis": np.array([1], i64)}
    program = agrees(model_of(nodes, {"x": ("N", 1, 4)}, constants))
    assert program.module(torch.zeros(2, 1, 4)).shape == (2, 4)


def test_a_branch_on_data_is_refused() -> None:
    branch = helper.make_graph([node("Identity", ["x"], ["t"])], "b", [], [
        helper.make_tensor_value_info("t", TensorProto.FLOAT, None)])  # fmt: skip
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0), node("Greater", ["m", "k"], ["is"]),
        node("If", ["is"], ["y"], name="/if", then_branch=branch, else_branch=branch),
    ]  # fmt: skip
    with pytest.raises(ModelError, match="If /if: its condition depends on the input"):
        imported(model_of(nodes, {"x": ("N", 4)}, {"k": np.float32(0)}))


def test_unsupported_operators_are_all_named_with_their_places() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("NonZero", ["a"], ["b"], name="/count"),
        node("FusedConv", ["a"], ["c"], name="/fused", domain="com.microsoft"),
        node("QuantizeLinear", ["a", "s"], ["d"], name="/q"),
    ]
    model = model_of(
        nodes, {"x": ("N", 4, 2, 2)}, {"w": numbers(4, 4, 1, 1), "s": np.float32(1)}, outputs=("b", "c", "d")
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ModelError, match="cannot be imported") as error:
        imported(model)
    for told in ("NonZero (its output's size depends on data) at /count", "com.microsoft", "/fused", "quantised"):
        assert told in str(error.value)


def test_what_no_output_needs_is_not_imported() -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("NonZero", ["x"], ["unread"])]
    assert len(imported(model_of(nodes, {"x": ("N", 4)})).module.graph.nodes) == 3


def test_open_sizes_are_asked_for_and_taken_from_the_user() -> None:
    model = model_of([node("GlobalAveragePool", ["x"], ["y"])], {"x": ("N", 3, "H", "W")})
    with pytest.raises(UsageError, match=r"its input x is 3x\?x\?; give --input"):
        imported(model)
    program = imported(model, [InputSpec("input", (None, 3, 8, 9))])
    assert program.inputs[0] == InputSpec("x", (None, 3, 8, 9))
    with pytest.raises(UsageError, match="has 1 inputs, --input gives 2"):
        imported(model, [InputSpec("a", (None, 3, 8, 9)), InputSpec("b", (None, 3, 8, 9))])


def test_half_precision_is_widened_with_a_note() -> None:
    nodes = [node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), node("MatMul", ["h", "w"], ["y"])]
    model = model_of(nodes, {"x": ("N", 4)}, {"w": numbers(4, 3).astype(np.float16)}, dtypes={"y": "float16"})
    program = imported(model)
    assert {p.dtype for p in program.parameters.values()} == {torch.float32}
    assert "1 tensors of 16 bits were widened to float32" in program.record.notes


def test_double_precision_is_kept() -> None:
    model = model_of(
        [node("MatMul", ["x", "w"], ["y"])], {"x": ("N", 4)}, {"w": np.eye(4)}, dtypes={"x": "float64", "y": "float64"}
    )
    assert agrees(model).inputs[0].dtype == "float64"


def test_names_that_are_no_attributes_are_made_into_some() -> None:
    nodes = [
        node("Conv", ["x", "onnx::Conv_12", "onnx::Conv_13"], ["a"], name="/layer1/layer1.0/conv1/Conv"),
        node("Conv", ["a", "net/c2/kernel:0"], ["b"]),
        node("Conv", ["b", "graph"], ["c"]),
        node("Conv", ["c", "block.class.weight"], ["d"]),
        node("Mul", ["d", "block"], ["y"]),
    ]
    weights = [numbers(4, 4, 1, 1, seed=i) for i in range(4)]
    constants = {
        "onnx::Conv_12": weights[0], "onnx::Conv_13": numbers(4), "net/c2/kernel:0": weights[1], "graph": weights[2],
        "block.class.weight": weights[3], "block": numbers(4, 1, 1),
    }  # fmt: skip
    program = agrees(model_of(nodes, {"x": ("N", 4, 2, 2)}, constants))
    assert set(program.parameters) == {
        "layer1.0.conv1.weight", "layer1.0.conv1.bias", "net/c2.weight", "graph_.weight", "block.class_.weight",
        "block_2",
    }  # fmt: skip
    again = from_bytes(to_bytes(program))
    torch.testing.assert_close(again.module(torch.ones(1, 4, 2, 2)), program.module(torch.ones(1, 4, 2, 2)))


def test_a_functions_body_is_written_out() -> None:
    body = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model = model_of([node("Twice", ["x"], ["y"], domain="own")], {"x": ("N", 4)})
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert imported(model).module(torch.ones(1, 4)).tolist() == [[2.0] * 4]


def test_nodes_say_where_they_come_from() -> None:
    program = imported(model_of([node("Relu", ["x"], ["y"], name="/act/Relu")], {"x": ("N", 4)}))
    (call,) = (n for n in program.module.graph.nodes if n.op == "call_function")
    assert call.meta["where"] == "Relu /act/Relu"


OTHERS = [
    ("split", [node("Split", ["x"], ["a", "b"], axis=1), node("Sub", ["a", "b"], ["y"])], {}),
    ("split sizes", [node("Split", ["x", "s"], ["a", "b"], axis=1), node("ReduceSum", ["b"], ["y"])],
     {"s": np.array([3, 5], i64)}),
    ("top k", [node("TopK", ["x", "k"], ["y", "i"], axis=1)], {"k": np.array([3], i64)}),
    ("where", [node("Greater", ["x", "z"], ["c"]), node("Not", ["c"], ["n"]), node("And", ["c", "n"], ["a"]),
               node("Or", ["c", "a"], ["o"]), node("Xor", ["o", "a"], ["q"]), node("Where", ["q", "x", "z"], ["y"])],
     {"z": np.float32(0)}),
    ("range", [node("Range", ["a", "b", "c"], ["r"]), node("Mul", ["x", "r"], ["y"])],
     {"a": np.float32(0), "b": np.float32(8), "c": np.float32(1)}),
    ("gather elements", [node("ArgMax", ["x"], ["i"], axis=1), node("GatherElements", ["x", "i"], ["y"], axis=1)], {}),
    ("scatter nd", [node("Transpose", ["x"], ["t"]), node("ScatterND", ["k", "i", "u"], ["s"]),
                    node("MatMul", ["x", "s"], ["y"])],
     {"k": numbers(8, 3), "i": np.array([[1], [6]], i64), "u": numbers(2, 3)}),
    ("cast like", [node("CastLike", ["x", "k"], ["c"]), node("CastLike", ["c", "x"], ["y"])],
     {"k": np.array([1], i64)}),
    ("rsqrt chain", [node("ReduceMean", ["x"], ["m"], axes=[-1]), node("Sub", ["x", "m"], ["d"]),
                     node("Mul", ["d", "d"], ["q"]), node("ReduceMean", ["q"], ["v"], axes=[-1]),
                     node("Add", ["v", "e"], ["a"]), node("Sqrt", ["a"], ["s"]), node("Div", ["d", "s"], ["n"]),
                     node("Mul", ["n", "w"], ["y"])], {"e": np.float32(1e-5), "w": numbers(8)}),
    ("number over x", [node("Exp", ["x"], ["e"]), node("Div", ["one", "e"], ["r"]),
                       node("Sub", ["one", "r"], ["d"]),
                       node("Pow", ["two", "d"], ["y"])], {"one": np.float32(1), "two": np.float32(2)}),
    ("positions", [node("Shape", ["x"], ["s"]), node("Gather", ["s", "z"], ["n"]),
                   node("Range", ["z", "n", "o"], ["r"]),
                   node("Cast", ["r"], ["f"], to=TensorProto.FLOAT), node("Unsqueeze", ["f", "a"], ["u"]),
                   node("Add", ["x", "u"], ["y"])],
     {"z": np.array(0, i64), "o": np.array(1, i64), "a": np.array([1], i64)}),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants"), [o[1:] for o in OTHERS], ids=[o[0] for o in OTHERS])
def test_operators_that_work_together(nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    assert agrees(model_of(nodes, {"x": ("N", 8)}, constants)).has_dynamic_batch
