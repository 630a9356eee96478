"""Every import beside its file in onnxruntime: what is wrong is found and named, what is right is never refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from compressor.formats import load
from compressor.formats.onnx_import import compare as comparing
from compressor.formats.onnx_import import fuse as fusing
from compressor.formats.onnx_import import plan
from compressor.formats.onnx_import.compare import DiffersError
from compressor.formats.onnx_import.source import NotRunError, Source
from compressor.formats.onnx_import.table import IMPORTERS
from compressor.program import InputSpec
from compressor.program.agreement import Agreement
from tests.formats.onnx_import.building import imported, model_of, numbers

node = helper.make_node
aten = torch.ops.aten
i64 = np.int64
ALL = "agrees with the file in onnxruntime at batches 1, 2, 3, 5, 8"


def deep(shape: tuple[Any, ...] = ("N", 8), *, last: str = "Softmax") -> onnx.ModelProto:
    """Two layers with an activation between and a normalisation behind, every node named."""
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h1"], name="/first/Gemm", transB=1),
        node("Tanh", ["h1"], ["t"], name="/mid/Tanh"),
        node("Gemm", ["t", "w2", "b2"], ["h2"], name="/second/Gemm", transB=1),
        node("Mul", ["h2", "k"], ["m"], name="/scale/Mul"),
        node(last, ["m"], ["y"], name=f"/last/{last}"),
    ]
    constants = {
        "w1": numbers(6, 8), "b1": numbers(6, seed=1), "w2": numbers(5, 6, seed=2), "b2": numbers(5, seed=3),
        "k": np.float32(1.5),
    }  # fmt: skip
    return model_of(nodes, {"x": shape}, constants)


WRONG: dict[str, tuple[str, Callable[[Any, Any], Any], str]] = {
    "another function": ("Tanh", lambda ctx, op: ctx.call(aten.sigmoid.default, op.needed(0)), "Tanh /mid/Tanh"),
    "nothing": ("Tanh", lambda ctx, op: op.needed(0), "Tanh /mid/Tanh"),
    "another number": ("Mul", lambda ctx, op: ctx.call(aten.mul.Tensor, op.needed(0), 1.49), "Mul /scale/Mul"),
    "another dimension": ("Softmax", lambda ctx, op: ctx.call(aten.softmax.int, op.needed(0), 0), "Softmax /last/"),
    "another shape": ("Mul", lambda ctx, op: ctx.call(aten.unsqueeze.default, op.needed(0), 1), "Mul /scale/Mul"),
    "another type": ("Softmax", lambda ctx, op: ctx.call(aten.to.dtype, op.needed(0), torch.float64), "Softmax /last/"),
    "a small slip": (
        "Tanh", lambda ctx, op: ctx.call(aten.mul.Tensor, ctx.call(aten.tanh.default, op.needed(0)), 1.0005),
        "Tanh /mid/Tanh",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_importer_is_caught_and_its_first_node_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, importer, named = WRONG[kind]
    assert imported(deep()).record.notes[-1] == ALL
    monkeypatch.setitem(IMPORTERS, operator, importer)
    with pytest.raises(DiffersError, match=f"m.onnx: {named}.*differs from onnxruntime: ") as error:
        imported(deep())
    assert len(str(error.value).splitlines()) == 2


def test_a_wrong_importer_is_caught_where_the_batch_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPORTERS, "Tanh", WRONG["another function"][1])
    with pytest.raises(DiffersError, match="Tanh /mid/Tanh"):
        imported(deep((2, 8)))


def test_a_wrong_fusion_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of([node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])], {"x": ("N", 8)})
    assert imported(model).record.notes[-1] == ALL
    monkeypatch.setitem(fusing._GATES, aten.sigmoid.default, aten.gelu.default)
    with pytest.raises(DiffersError, match="Mul y: at batch 1 it differs"):
        imported(model)


def test_outputs_in_another_order_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Neg", ["x"], ["b"])]
    model = model_of(nodes, {"x": ("N", 8)}, outputs=("a", "b"))
    from compressor.formats.onnx_import import build as building

    real = building._Walker.value
    swapped = {"a": "b", "b": "a"}
    monkeypatch.setattr(
        building._Walker, "value",
        lambda self, name, reader: real(self, swapped[name] if reader == "the output" else name, reader),
    )  # fmt: skip
    with pytest.raises(DiffersError, match="the output a: at batch 1 it differs"):
        imported(model)


def test_a_slip_that_only_ties_show_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers are never equal and never half way: some of the inputs are rounded."""
    model = model_of([node("Round", ["x"], ["y"])], {"x": ("N", 40)})

    def away_from_zero(ctx: Any, op: Any) -> Any:
        half = ctx.call(aten.add.Tensor, ctx.call(aten.abs.default, op.needed(0)), 0.5)
        return ctx.call(aten.mul.Tensor, ctx.call(aten.floor.default, half), ctx.call(aten.sign.default, op.needed(0)))

    monkeypatch.setitem(IMPORTERS, "Round", away_from_zero)
    with pytest.raises(DiffersError, match="Round y"):
        imported(model)


def test_a_slip_that_only_negative_integers_show_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(
        [node("Div", ["x", "k"], ["y"])], {"x": ("N", 40)}, {"k": np.array(3, i64)}, dtypes={"x": "int64", "y": "int64"}
    )
    assert imported(model).record.notes[-1] == ALL
    floored = lambda ctx, op: ctx.call(aten.div.Tensor_mode, *op.inputs, rounding_mode="floor")  # noqa: E731
    monkeypatch.setitem(IMPORTERS, "Div", floored)
    with pytest.raises(DiffersError, match="Div y"):
        imported(model)


def noisy() -> onnx.ModelProto:
    """Probabilities of 1e-6, of which rounding leaves little: what is compared alone agrees, the outputs do not."""
    nodes = [
        node("Gemm", ["x", "w1"], ["h"]), node("Mul", ["h", "much"], ["m"]), node("Sin", ["m"], ["s"]),
        node("Gemm", ["s", "w2"], ["z"]), node("Mul", ["z", "much"], ["z2"]), node("Sin", ["z2"], ["y"]),
    ]  # fmt: skip
    return model_of(nodes, {"x": ("N", 64)}, {"w1": numbers(64, 64), "w2": numbers(64, 64), "much": np.float32(3e4)})


def test_a_network_that_amplifies_rounding_is_compared_operator_by_operator() -> None:
    program = imported(noisy())
    assert program.record.notes[-1] == f"{ALL}, operator by operator"


def test_a_wrong_operator_in_such_a_network_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPORTERS, "Sin", lambda ctx, op: ctx.call(aten.cos.default, op.needed(0)))
    with pytest.raises(DiffersError, match="Sin s"):
        imported(noisy())


def test_near_ties_that_are_ordered_otherwise_do_not_refuse_a_right_import() -> None:
    """Scores that differ by a rounding, of which the best are looked up: the outputs differ by all there is."""
    nodes = [
        node("Gemm", ["x", "w"], ["h"]), node("Softmax", ["h"], ["p"], axis=1), node("Mul", ["p", "tiny"], ["q"]),
        node("Add", ["q", "one"], ["r"]), node("TopK", ["r", "k"], ["v", "i"], axis=1),
        node("Gather", ["t", "i"], ["y"]),
    ]  # fmt: skip
    constants = {
        "w": numbers(64, 200), "tiny": np.float32(3e-6), "one": np.float32(1), "k": np.array([100], i64),
        "t": numbers(200, 3, seed=2),
    }  # fmt: skip
    assert imported(model_of(nodes, {"x": ("N", 64)}, constants)).record.notes[-1].startswith(ALL)


def test_nan_on_both_sides_agrees() -> None:
    model = model_of([node("Sqrt", ["x"], ["y"])], {"x": ("N", 8)})
    assert imported(model).record.notes[-1] == ALL


def test_outputs_without_a_finite_number_are_compared_operator_by_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        node("Abs", ["x"], ["a"]),
        node("Neg", ["a"], ["n"]),
        node("Sub", ["n", "k"], ["s"]),
        node("Log", ["s"], ["y"]),
    ]
    model = model_of(nodes, {"x": ("N", 8)}, {"k": np.float32(1)})
    assert imported(model).record.notes[-1] == f"{ALL}, operator by operator"
    monkeypatch.setitem(IMPORTERS, "Abs", lambda ctx, op: ctx.call(aten.relu.default, op.needed(0)))
    with pytest.raises(DiffersError, match="Abs a"):
        imported(model)


def test_what_onnxruntime_cannot_open_is_noted() -> None:
    """It has no kernel for a convolution in float64."""
    model = model_of(
        [node("Conv", ["x", "w"], ["y"])], {"x": ("N", 2, 5, 5)}, {"w": np.ones((3, 2, 3, 3))},
        dtypes={"x": "float64", "y": "float64"},
    )  # fmt: skip
    said = imported(model).record.notes[-1]
    assert said.startswith("not compared with the file: onnxruntime cannot open it: ") and "Conv" in said


def test_what_cannot_be_compared_is_still_not_opened_blindly() -> None:
    model = model_of(
        [node("Conv", ["x", "w"], ["c"]), node("ReduceMean", ["c"], ["m"], axes=[0]), node("Sub", ["c", "m"], ["y"])],
        {"x": (1, 2, 5, 5)}, {"w": np.ones((3, 2, 3, 3))}, dtypes={"x": "float64", "y": "float64"},
    )  # fmt: skip
    program = imported(model)
    assert program.inputs[0].shape == (1, 2, 5, 5)
    assert "depend on the others in its batch" in program.record.notes[1]


def test_a_division_by_zero_never_reaches_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some versions end the process by it. A divisor that goes in is compared without zeros, a computed one not."""
    ran = list[bool]()
    run = Source.run
    monkeypatch.setattr(Source, "run", lambda s, inputs: (ran.append(bool((inputs[0] == 0).any())), run(s, inputs))[1])
    kinds = {"x": "int64", "y": "int64"}
    held = {"k": np.array(3, i64), "two": np.array(2, i64)}
    model = model_of([node("Div", ["k", "x"], ["y"])], {"x": ("N", 40)}, held, dtypes=kinds)
    program = imported(model)
    assert program.record.notes[-1].startswith("agrees with the file in onnxruntime at batches 1, 2, 3, 5, 8")
    assert ran and not any(ran)
    assert program.module(torch.tensor([[0, 1, -1, 2] * 10]))[0, :4].tolist() == [3, 3, -3, 1]
    ran.clear()
    halved = [node("Div", ["x", "two"], ["h"]), node("Div", ["k", "h"], ["y"])]
    said = imported(model_of(halved, {"x": ("N", 40)}, held, dtypes=kinds)).record.notes[-1]
    assert said == "not compared with the file: it divides whole numbers by 0 for random inputs"
    assert not ran


def test_a_network_that_is_too_large_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_LARGEST_VALUE", 4)
    assert imported(deep()).record.notes[-1] == "not compared with the file: its values are too large"


@pytest.mark.parametrize(
    ("most", "told"),
    [(19, "batches 1, 2, 3, 5, 8"), (18, "batches 1, 3"), (3, "batch 2")],
    ids=["cheap", "expensive", "very"],
)
def test_an_expensive_network_is_run_at_fewer_batches(most: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    macs = 8 * 6 + 6 * 5
    monkeypatch.setattr(plan, "_MOST_MACS", dict.fromkeys(plan._MOST_MACS, most * macs))
    assert imported(deep()).record.notes[-1] == f"agrees with the file in onnxruntime at {told}"


def test_an_expensive_network_of_a_fixed_batch_is_run_on_fewer_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_MOST_MACS", dict.fromkeys(plan._MOST_MACS, 1))
    assert "at batches 2, 4, 2 at a time" in imported(deep((2, 8))).record.notes[-1]


NAN = ["ArgMax", "ReduceMax", "Sign", "MaxPool", "TopK"]


@pytest.mark.parametrize("kind", NAN)
def test_what_an_operator_makes_of_nan_refuses_no_network(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX does not say, and torch and onnxruntime differ; on positive inputs there is none, and a slip shows."""
    attributes: dict[str, Any] = {
        "ArgMax": {"axis": 1}, "ReduceMax": {"axes": [1]}, "MaxPool": {"kernel_shape": [2]}
    }.get(kind, {})  # fmt: skip
    nodes = [
        node("Log", ["x"], ["l"]),
        node(kind, ["l", "k"] if kind == "TopK" else ["l"], ["y", "i"] if kind == "TopK" else ["y"], **attributes),
    ]
    model = model_of(
        nodes, {"x": ("N", 3, 8)}, {"k": np.array([2], i64)} if kind == "TopK" else {},
        dtypes={"y": "int64" if kind == "ArgMax" else "float32"},
    )  # fmt: skip
    assert imported(model).record.notes[-1] == f"{ALL}, operator by operator"
    real = IMPORTERS["Log"]
    monkeypatch.setitem(IMPORTERS, "Log", lambda ctx, op: ctx.call(aten.mul.Tensor, real(ctx, op), -1.0))
    with pytest.raises(DiffersError, match="Log l"):
        imported(model)


def test_a_slip_behind_nan_is_caught_on_positive_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of([node("Log", ["x"], ["l"]), node("ReduceMax", ["l"], ["y"], axes=[1])], {"x": ("N", 8)})
    monkeypatch.setitem(IMPORTERS, "ReduceMax", lambda ctx, op: ctx.call(aten.amin.default, op.needed(0), [1], True))
    with pytest.raises(DiffersError, match="ReduceMax y"):
        imported(model)


def test_where_the_runtime_shows_no_values_a_difference_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def values(self: Source, names: Any, inputs: Any) -> dict[str, np.ndarray]:
        raise NotRunError("it is too large to be changed for it")

    monkeypatch.setattr(Source, "values", values)
    monkeypatch.setitem(IMPORTERS, "Tanh", WRONG["another function"][1])
    with pytest.raises(DiffersError, match=r"its outputs are not those of the file: .*; it is too large"):
        imported(deep())
    monkeypatch.setattr(comparing, "_MOST_VALUES", 4)
    with pytest.raises(DiffersError, match="too large to look at every operator"):
        imported(deep())


def test_the_judgment_is_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Agreement(1.0, 1.0, 0.0)
    monkeypatch.setattr(comparing, "judge", lambda evidence, limit: refused)
    assert imported(deep()).record.notes[-1] == f"{ALL}, operator by operator"


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_files_of_16_bits_are_compared_after_they_are_widened(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = {"w": numbers(8, 6), "k": np.float32(0.1)}
    nodes = [
        node("Cast", ["x"], ["h"], to=kind), node("MatMul", ["h", "w"], ["m"]), node("Mul", ["m", "k"], ["s"]),
        node("Tanh", ["s"], ["t"], name="/act"), node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
    ]  # fmt: skip
    model = model_of(nodes, {"x": ("N", 8)}, constants)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).flatten()
        tensor.CopyFrom(helper.make_tensor(tensor.name, kind, tensor.dims, values))
    assert imported(model).record.notes[-1] == ALL
    monkeypatch.setitem(IMPORTERS, "Tanh", WRONG["another function"][1])
    with pytest.raises(DiffersError, match="Tanh /act"):
        imported(model)


def saved(folder: Path, *, external: bool) -> Path:
    onnx.save(deep(), folder / "m.onnx", save_as_external_data=external, location="m.data", size_threshold=0)
    return folder / "m.onnx"


@pytest.mark.parametrize("external", [False, True])
def test_files_are_compared_where_they_are(external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, external=external)
    assert load(path).record.notes[-1] == ALL
    monkeypatch.setitem(IMPORTERS, "Tanh", WRONG["another function"][1])
    with pytest.raises(DiffersError, match="Tanh /mid/Tanh"):
        load(path)


def test_weights_that_are_read_wrongly_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime reads the file itself, not what this importer read of it."""
    from compressor.formats.onnx_import import read

    path = saved(tmp_path, external=True)
    real = np.fromfile
    monkeypatch.setattr(read.np, "fromfile", lambda *args, **kwargs: real(*args, **kwargs)[::-1].copy())
    with pytest.raises(DiffersError, match="Gemm /first/Gemm"):
        load(path)


def test_nodes_that_no_output_needs_are_not_run() -> None:
    """A runtime would compute them, and this one fails for any batch but one of 2."""
    nodes = [node("Relu", ["x"], ["y"]), node("Reshape", ["x", "s"], ["unread"])]
    model = model_of(nodes, {"x": ("N", 4)}, {"s": np.array([2, 4], i64)})
    assert imported(model).record.notes[-1] == ALL


def test_a_functions_body_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    body = [node("Tanh", ["a"], ["t"], name="inner"), node("Add", ["t", "a"], ["b"])]
    function = helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model = model_of([node("Twice", ["x"], ["y"], domain="own")], {"x": ("N", 4)})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert imported(model).record.notes[-1] == ALL
    monkeypatch.setitem(IMPORTERS, "Tanh", WRONG["another function"][1])
    with pytest.raises(DiffersError, match="Tanh"):
        imported(model)


def test_ids_reach_the_whole_table_and_no_further() -> None:
    nodes = [node("Gather", ["t", "ids.1"], ["e"]), node("MatMul", ["e", "w"], ["y"])]
    model = model_of(nodes, {"ids.1": ("N", 5)}, {"t": numbers(30, 4), "w": numbers(4, 3)}, dtypes={"ids.1": "int64"})
    program = imported(model)
    assert program.record.notes[-1] == ALL
    ids = torch.cat([program.example_inputs(8, seed=seed)[0] for seed in range(4)])
    assert int(ids.max()) > 20 and int(ids.max()) < 30


def test_several_inputs_and_outputs_are_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        node("Add", ["a", "m"], ["s"]), node("Cast", ["q"], ["f"], to=1), node("Mul", ["s", "f"], ["y"]),
        node("ArgMax", ["s"], ["i"], axis=1, name="/best"),
    ]  # fmt: skip
    model = model_of(
        nodes, {"a": ("N", 4), "m": ("N", 4), "q": ("N", 4)}, outputs=("y", "i"), dtypes={"q": "bool", "i": "int64"}
    )
    assert imported(model).record.notes[-1] == ALL
    monkeypatch.setitem(IMPORTERS, "ArgMax", lambda ctx, op: ctx.call(aten.argmin.default, op.needed(0), 1, True))
    with pytest.raises(DiffersError, match="ArgMax /best"):
        imported(model)


def test_a_size_that_the_user_gives_is_the_one_that_is_compared() -> None:
    model = model_of([node("GlobalAveragePool", ["x"], ["y"])], {"x": ("N", 3, 224, 224)})
    program = imported(model, [InputSpec("x", (None, 3, 8, 9))])
    assert program.record.notes[-1] == ALL


def test_an_output_that_no_sample_is_in_is_the_same_for_every_part() -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Identity", ["anchors"], ["a"])]
    program = imported(model_of(nodes, {"x": (1, 4)}, {"anchors": numbers(6, 4)}, outputs=("y", "a")))
    assert program.has_dynamic_batch
    assert program.record.notes[-1] == "agrees with the file in onnxruntime at batches 1, 2, 3, 1 at a time"


def test_the_note_is_the_same_on_every_run() -> None:
    """It goes into the checkpoint, whose bytes say what is in it."""
    assert imported(deep()).record.notes == imported(deep()).record.notes


def test_importing_draws_no_random_numbers_of_the_caller() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    imported(deep())
    assert torch.equal(torch.rand(3), expected)


def test_the_command_line_shows_what_differs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    from compressor.cli.main import main

    path = saved(tmp_path, external=False)
    assert main(["analyze", str(path)]) == 0
    assert ALL in " ".join(capsys.readouterr().out.split())
    monkeypatch.setitem(IMPORTERS, "Tanh", WRONG["another function"][1])
    assert main(["analyze", str(path)]) == 1
    assert "Tanh /mid/Tanh: at batch 1 it differs from onnxruntime" in capsys.readouterr().err
