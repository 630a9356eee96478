"""Where ONNX and torch mean different things: integers, ties, positions from the end, sizes that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from compressor.axes import find_units
from compressor.errors import ModelError
from compressor.exporting import export_onnx
from compressor.formats.checkpoint import to_bytes
from compressor.formats.load import from_bytes
from compressor.program import InputSpec
from tests.formats.onnx_import.building import agrees, imported, model_of, numbers, one_node, outputs_of

node = helper.make_node
i64 = np.int64

SIGNED = np.array([[-7, -3, -2, -1, 0, 1, 2, 5]], i64)
BESIDE = np.array([3, -3, 2, -2, 4, -4, 5, -1], i64)


def computed(model: onnx.ModelProto, *arrays: np.ndarray) -> list[torch.Tensor]:
    """What the imported program gives for those inputs, and that onnxruntime gives the same."""
    import onnxruntime as ort

    program = imported(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {x.name: value for x, value in zip(session.get_inputs(), arrays, strict=True)})
    found = outputs_of(program, [torch.from_numpy(value) for value in arrays])
    for mine, theirs in zip(found, wanted, strict=True):
        assert str(mine.dtype).removeprefix("torch.") == str(theirs.dtype)
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-6)
    return found


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("kind", ["Div", "Mod", "Mod by the other sign"])
def test_integers_are_divided_as_onnx_does(kind: str, dtype: str) -> None:
    attributes = {"fmod": 1} if kind.endswith("sign") else {}
    model = one_node(kind.split()[0], ("N", 8), [BESIDE.astype(dtype)], dtype=dtype, out=dtype, **attributes)
    computed(model, SIGNED.astype(dtype))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, 1.5, -1, -2], ids=str)
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_a_power_of_integers_is_an_integer(dtype: str, exponent: float) -> None:
    kind = np.float32 if isinstance(exponent, float) else np.dtype(dtype).type
    base = np.arange(1, 9, dtype=dtype)[None]
    computed(one_node("Pow", ("N", 8), [kind(exponent)], dtype=dtype, out=dtype), base)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_a_power_by_a_tensor_of_exponents(dtype: str) -> None:
    exponents = np.array([0, 1, 2, 3, 0, 1, 2, 3], dtype)
    computed(one_node("Pow", ("N", 8), [exponents], dtype="int64", out="int64"), np.arange(1, 9, dtype=i64)[None])


TIES = np.array([[2, 3, 3, 1, 3, 2, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]], np.float32)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("k", [1, 2, 4, 7, 8])
def test_of_equal_values_the_first_is_kept(k: int, largest: int) -> None:
    model = one_node("TopK", ("N", 8), [np.array([k], i64)], n_outputs=2, axis=1, largest=largest)
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    values, positions = computed(model, TIES)
    assert values.shape == positions.shape == (2, k)
    program = imported(model)
    assert find_units(program).walk.unknown == {}


def test_the_exported_file_keeps_the_first_too(tmp_path: Any) -> None:
    import onnxruntime as ort

    model = one_node("TopK", ("N", 8), [np.array([3], i64)], n_outputs=2, axis=1)
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    program = imported(model)
    export_onnx(program, tmp_path / "m.onnx", batch_sizes=(1, 2))
    found = ort.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"x": TIES})
    assert found[1].tolist() == outputs_of(program, [torch.from_numpy(TIES)])[1].tolist() == [[1, 2, 4], [0, 1, 2]]


def test_more_than_there_is_cannot_be_kept() -> None:
    model = one_node("TopK", ("N", 4), [np.array([5], i64)], n_outputs=2, axis=1)
    with pytest.raises(ModelError, match="keeps 5 of 4 values"):
        imported(model)


LOOKUPS: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "a table by floats": (
        [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Gather", ["t", "i"], ["y"])],
        {"t": numbers(10, 4)},
    ),
    "a table by computed ids": (
        [node("Cast", ["x"], ["c"], to=TensorProto.INT64), node("Sub", ["c", "one"], ["i"]),
         node("Gather", ["t", "i"], ["y"])],
        {"t": numbers(10, 4), "one": np.array(1, i64)},
    ),
    "elements": (
        [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("GatherElements", ["x", "i"], ["y"], axis=1)], {},
    ),
    "fixed elements": (
        [node("Transpose", ["x"], ["t"]), node("GatherElements", ["t", "i"], ["y"], axis=0)],
        {"i": np.array([[-1], [0], [-6]], i64)},
    ),
    "scattered elements": (
        [node("Clip", ["x", "low", "high"], ["f"]), node("Cast", ["f"], ["i"], to=TensorProto.INT64),
         node("Neg", ["i"], ["m"]), node("ScatterElements", ["x", "m", "x"], ["y"], axis=1)],
        {"low": np.float32(1), "high": np.float32(1)},
    ),
    "tuples": (
        [node("Transpose", ["x"], ["t"]), node("GatherND", ["t", "i"], ["y"])], {"i": np.array([[-1], [2]], i64)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOOKUPS)
def test_negative_positions_count_from_the_end(kind: str) -> None:
    nodes, constants = LOOKUPS[kind]
    computed(model_of(nodes, {"x": ("N", 6)}, constants), np.array([[-3, -2, -1, 0, 1, 2]], np.float32))


def test_positions_that_are_known_to_be_positive_are_taken_as_they_are() -> None:
    nodes = [node("ArgMax", ["x"], ["i"], axis=1), node("GatherElements", ["x", "i"], ["y"], axis=1)]
    targets = [str(n.target) for n in agrees(model_of(nodes, {"x": ("N", 6)})).module.graph.nodes]
    assert "aten.where.self" not in targets


def test_ids_from_outside_are_looked_up_as_they_are() -> None:
    model = model_of([node("Gather", ["t", "x"], ["y"])], {"x": ("N", 3)}, {"t": numbers(7, 4)}, dtypes={"x": "int64"})
    calls = [n for n in agrees(model).module.graph.nodes if n.op == "call_function"]
    assert [n.target for n in calls] == [torch.ops.aten.embedding.default]


def test_a_position_beyond_the_end_is_refused() -> None:
    with pytest.raises(ModelError, match="looks up position 5 of 5"):
        imported(one_node("Gather", ("N", 5), [np.array([3, 4, 5], i64)], axis=1))


def test_a_row_of_minus_infinity_masks_and_is_no_diverged_weight() -> None:
    table = np.zeros((7, 1), np.float32)
    table[0] = -np.inf
    nodes = [node("Gather", ["t", "x"], ["b"]), node("Softmax", ["b"], ["y"], axis=1)]
    program = agrees(model_of(nodes, {"x": ("N", 3)}, {"t": table}, dtypes={"x": "int64"}))
    assert not program.parameters


TRANSPOSED: list[dict[str, Any]] = [
    {"strides": [2, 2], "output_shape": [18, 17]},
    {"strides": [2, 2], "output_shape": [14, 13], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "output_shape": [14, 13], "auto_pad": "SAME_LOWER"},
    {"strides": [3, 2], "output_shape": [13, 9]},
    {"strides": [3, 3], "auto_pad": "SAME_UPPER"},
    {"strides": [3, 3], "auto_pad": "SAME_LOWER", "output_padding": [1, 1]},
    {"strides": [2, 2], "auto_pad": "VALID", "output_padding": [1, 0]},
    {"strides": [2, 2], "dilations": [2, 1], "output_shape": [17, 15]},
    {"strides": [1, 2], "pads": [0, 1, 2, 0]},
]  # fmt: skip


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("attributes", TRANSPOSED, ids=str)
def test_transposed_convolutions_reach_the_size_that_is_asked_for(attributes: Any, biased: bool, kernel: int) -> None:
    weights = [numbers(4, 3, kernel, kernel), *([numbers(3)] if biased else [])]
    program = imported(one_node("ConvTranspose", ("N", 4, 7, 6), weights, **attributes))
    said = program.record.notes[-1]
    assert said.startswith("agrees with the file") or "onnxruntime cannot run it: ConvTranspose" in said
    assert find_units(program).walk.unknown == {}


def test_most_of_those_sizes_can_be_compared() -> None:
    """The test above would pass if onnxruntime ran none of them."""
    models = [one_node("ConvTranspose", ("N", 4, 7, 6), [numbers(4, 3, 3, 3)], **a) for a in TRANSPOSED]
    said = [imported(model).record.notes[-1] for model in models]
    assert sum(note.startswith("agrees") for note in said) >= len(models) - 2


def test_what_is_beyond_the_sums_is_the_bias() -> None:
    model = one_node("ConvTranspose", ("N", 2, 3), [numbers(2, 1, 3), np.float32([5])], strides=[2], output_shape=[8])
    assert agrees(model).module(torch.randn(1, 2, 3))[0, 0, -1] == 5


@pytest.mark.parametrize(("low", "high"), [("a", "b"), ("a", ""), ("", "b")])
def test_bounds_that_are_computed_clip(low: str, high: str) -> None:
    nodes = [
        node("ReduceMax", ["x"], ["b"], keepdims=0), node("ReduceMin", ["x"], ["m"], keepdims=0),
        node("Mul", ["m", "half"], ["a"]), node("Mul", ["x", "two"], ["d"]), node("Clip", ["d", low, high], ["y"]),
    ]  # fmt: skip
    constants = {"half": np.float32(0.5), "two": np.float32(2)}
    assert agrees(model_of(nodes, {"x": ("N", 6)}, constants)).has_dynamic_batch


def dropout(training: bool | None, opset: int = 13) -> onnx.ModelProto:
    flag = [] if training is None else [np.array(training)]
    return one_node("Dropout", ("N", 6), [np.float32(0.5), *flag], opset=opset)


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "training dropout": (lambda: dropout(True), "drops values at random, as in training"),
    "values in any order": (
        lambda: one_node("TopK", ("N", 8), [np.array([3], i64)], n_outputs=2, axis=1, sorted=0), "no defined order",
    ),
    "padding of the sums": (
        lambda: one_node("ConvTranspose", ("N", 2, 3), [numbers(2, 1, 3)], pads=[-1, 0]), "negative padding",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_meant_here_is_refused_with_a_reason(kind: str) -> None:
    make, told = REFUSED[kind]
    with pytest.raises(ModelError, match=told):
        imported(make())


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_falls_on_one_place_is_reduced(reduction: str, axis: int) -> None:
    at = np.array([[0, 2, -1], [2, 0, 0]], i64) if reduction != "none" else np.array([[0, 2, 1], [2, 0, 0]], i64)
    agrees(
        one_node("ScatterElements", (3, 3), [at, numbers(2, 3)], opset=18, reduction=reduction, axis=axis), batches=(3,)
    )


@pytest.mark.parametrize("training", [False, None])
def test_dropout_in_evaluation_passes(training: bool | None) -> None:
    assert agrees(dropout(training)).has_dynamic_batch


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_to_depth_knows_both_orders(mode: str) -> None:
    """An attribute of opset 28 under a name of opset 1; onnxruntime cannot open such a file yet."""
    if onnx.defs.onnx_opset_version() < 28:
        pytest.skip("the installed onnx has no such opset")
    model = one_node("SpaceToDepth", ("N", 2, 4, 4), blocksize=2, mode=mode, opset=28)
    program = imported(model)
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    channels_first = torch.nn.functional.pixel_unshuffle(x, 2)
    blocks_first = channels_first.reshape(1, 2, 4, 2, 2).transpose(1, 2).reshape(1, 8, 2, 2)
    assert torch.equal(program.module(x), channels_first if mode == "CRD" else blocks_first)


@pytest.mark.parametrize("name", ["self", "torch", "x:0", "for", "1st", "forward", "input.1"])
def test_inputs_may_have_any_name(name: str) -> None:
    program = agrees(model_of([node("Relu", [name], ["y"])], {name: ("N", 4)}))
    assert program.inputs == (InputSpec(name, (None, 4)),)


def test_outputs_whose_names_differ_in_what_no_key_can_hold_stay_apart() -> None:
    nodes = [node("Relu", ["x"], ["a;b"]), node("Neg", ["x"], ["a'b"])]
    program = agrees(model_of(nodes, {"x": ("N", 4)}, outputs=("a;b", "a'b")))
    assert len(program.module(torch.ones(1, 4))) == 2


@pytest.mark.parametrize("opset", [7, 8])
def test_old_opsets_are_converted_and_compared_with_the_file_as_it_was(opset: int) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["h"]),
        node("Upsample", ["h"], ["u"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]),
    ]
    nodes += [node("BatchNormalization", ["u", "one", "zero", "zero", "one"], ["y"])]
    constants = {"w": numbers(6, 3, 3, 3), "one": np.ones(6, np.float32), "zero": np.zeros(6, np.float32)}
    program = agrees(model_of(nodes, {"x": ("N", 3, 6, 6)}, constants, opset=opset))
    assert f"was written in opset {opset} and converted to 9" in program.record.notes


def test_answers_that_never_count_are_masked_by_a_bias_of_minus_infinity() -> None:
    bias = np.array([0.5, -np.inf, 0.1, -np.inf], np.float32)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["s"]), node("Softmax", ["s"], ["y"])]
    program = agrees(model_of(nodes, {"x": ("N", 5)}, {"w": numbers(5, 4), "b": bias}))
    assert [tuple(p.shape) for p in program.parameters.values()] == [(4, 5)]
    assert from_bytes(to_bytes(program)).n_parameters == 20


@pytest.mark.parametrize("kind", ["LayerNormalization", "RMSNormalization"])
def test_a_norm_may_compute_its_scale(kind: str) -> None:
    shift = ["s"] if kind == "LayerNormalization" else []
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("MatMul", ["x", "v"], ["s"]),
        node(kind, ["h", "s", *shift], ["y"]),
    ]
    agrees(model_of(nodes, {"x": ("N", 5)}, {"w": numbers(5, 4), "v": numbers(5, 4, seed=1)}, opset=23))


def targets_of(model: onnx.ModelProto) -> set[str]:
    return {str(n.target) for n in agrees(model).module.graph.nodes if n.op == "call_function"}


@pytest.mark.parametrize(
    ("shape", "slopes", "is_one_operator"),
    [
        (("N", 4, 6, 7), (4, 1, 1), True),
        (("N", 4, 6), (4, 1), True),
        (("N", 8), (8,), True),
        (("N", 4, 6, 7), (1,), True),
        (("N",), (1,), True),
        (("N", 4, 6, 7), (1, 1, 7), False),
        (("N", 4, 4, 7), (4, 7), False),
        (("N", 4, 6, 7), (4, 6, 7), False),
        (("N", 4, 6, 7), (4, 6, 1), False),
        (("N", 5, 8), (8,), False),
    ],
)
def test_a_slope_per_channel_is_torchs_operator_and_any_other_is_written_out(
    shape: tuple[Any, ...], slopes: tuple[int, ...], is_one_operator: bool
) -> None:
    found = targets_of(one_node("PRelu", shape, [numbers(*slopes)]))
    assert ("aten.prelu.default" in found) == is_one_operator


@pytest.mark.parametrize("kind", ["Div", "Mod"])
@pytest.mark.parametrize(("divisor", "is_safe"), [(2, True), (-3, True), (-1, False)])
def test_only_a_divisor_that_may_stop_the_processor_is_looked_at(kind: str, divisor: int, is_safe: bool) -> None:
    model = one_node(kind, ("N", 8), [np.full(8, divisor, i64)], dtype="int64", out="int64")
    computed(model, SIGNED)
    assert ("aten.where.self" not in targets_of(model)) == is_safe
    least = torch.full((1, 8), torch.iinfo(torch.int64).min)
    (found,) = outputs_of(imported(model), [least])
    if divisor == -1:
        assert torch.equal(found, least if kind == "Div" else torch.zeros_like(least)), "it has no negative"


def test_whole_numbers_are_divided_by_1_where_they_would_be_by_0() -> None:
    nodes = [node("Div", ["a", "b"], ["q"])]
    program = imported(
        model_of(
            nodes, {"a": ("N", 4), "b": ("N", 4)}, outputs=["q"], dtypes={"a": "int64", "b": "int64", "q": "int64"}
        )
    )
    a, b = torch.tensor([[7, 7, 7, 7]]), torch.tensor([[0, 1, 2, -1]])
    (found,) = outputs_of(program, [a, b])
    assert found.tolist() == [[7, 7, 3, -7]]


@pytest.mark.parametrize("opset", [11, 17])
def test_dropout_of_a_constant_is_the_constant(opset: int) -> None:
    nodes = [node("Dropout", ["c"], ["d"]), node("Add", ["x", "d"], ["y"])]
    found = targets_of(model_of(nodes, {"x": ("N", 6)}, {"c": numbers(6)}, opset=opset))
    assert found == {"aten.add.Tensor"}


@pytest.mark.parametrize("computed_one", [3, 4])
def test_running_statistics_that_are_computed_are_refused(computed_one: int) -> None:
    held = {"s": numbers(6), "b": numbers(6, seed=1), "m": numbers(6, seed=2), "v": np.abs(numbers(6)) + 1}
    given = ["x", "s", "b", "m", "v"]
    nodes = [node("ReduceMean", ["x"], ["r"], axes=[0], keepdims=0)]
    given[computed_one] = "r"
    nodes.append(node("BatchNormalization", given, ["y"]))
    with pytest.raises(ModelError, match="computes its running statistics, which is not supported"):
        imported(model_of(nodes, {"x": ("N", 6)}, held, opset=15))


def test_a_local_response_has_onnx_own_numbers_where_none_are_given() -> None:
    x = np.linspace(10, 40, 5 * 2 * 2, dtype=np.float32).reshape(1, 5, 2, 2)
    computed(one_node("LRN", ("N", 5, 2, 2), size=5), x)
