"""What an ONNX file promises to the programs that use it, after import, prune, compact and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import compressor
from compressor.errors import CompressError, ModelError, UsageError
from compressor.exporting import verify
from compressor.program import InputSpec, Interface, Program, parse_input
from compressor.program.interface import Port

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
Ports = Sequence[tuple[str, int, Sequence[int | str] | None]]
node = helper.make_node


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) * 0.3


@dataclass(frozen=True)
class File:
    """A file, the sizes that its import is told, and the inputs that it is fed beside them."""

    nodes: Sequence[onnx.NodeProto]
    inputs: Ports
    outputs: Ports
    constants: Mapping[str, np.ndarray]
    told: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[int, ...]] | None = None
    """Shapes of further inputs that the original takes and the export has to take."""

    def write(self, path: Path, metadata: Mapping[str, str] | None = None) -> Path:
        given = [helper.make_tensor_value_info(*port) for port in self.inputs]
        made = [helper.make_tensor_value_info(*port) for port in self.outputs]
        held = [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()]
        graph = helper.make_graph(list(self.nodes), "g", given, made, held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, dict(metadata or {}))
        onnx.save(model, path)
        return path


HEAD = {"w": weights(16, 3, 3, 3), "w2": weights(4, 16, 1, 1)}
FIRST = [node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]), node("Relu", ["h"], ["r"])]
LAST = [node("Conv", ["r", "w2"], ["y"])]
IMAGE: Ports = [("x", FLOAT, ["n", 3, "height", "width"])]
DOWN = [
    node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
    node("Conv", ["p", "w3"], ["q"], pads=[1, 1, 1, 1]),
]
UP = [node("Add", ["u", "r"], ["a"]), node("Conv", ["a", "w2"], ["y"])]
PYRAMID = {**HEAD, "w3": weights(16, 16, 3, 3)}
SHAPES = [
    node("Shape", ["r"], ["s"]), node("Slice", ["s", "two", "four"], ["hw"]), node("Shape", ["q"], ["sq"]),
    node("Slice", ["sq", "zero", "two"], ["nc"]), node("Concat", ["nc", "hw"], ["sizes"], axis=0),
]  # fmt: skip
NUMBERS = {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4]), "open": np.array([-1])}
FACTORS = {"k": np.array(16000), "a2": np.float32(2), "a3": np.float32(3)}
WAVE: Ports = [("x", FLOAT, ["n", 3, "time"])]
IS_FAST = helper.make_graph(
    [node("Mul", ["r", "a2"], ["t"])], "t", [], [helper.make_tensor_value_info("t", FLOAT, None)]
)
IS_SLOW = helper.make_graph(
    [node("Mul", ["r", "a3"], ["e"])], "e", [], [helper.make_tensor_value_info("e", FLOAT, None)]
)
LARGER: Mapping[str, tuple[int, ...]] = {"x": (2, 3, 24, 40)}

FILES: dict[str, File] = {
    "names": File([*FIRST, node("Conv", ["r", "w2"], ["logits:0"])], [("x", FLOAT, ["n", 3, 8, 8])],
                  [("logits:0", FLOAT, None)], HEAD, sizes={"x": (3, 3, 8, 8)}),
    "several outputs": File([*FIRST, *LAST, node("GlobalAveragePool", ["y"], ["g e"])], [("x", FLOAT, ["n", 3, 8, 8])],
                            [("y", FLOAT, None), ("g e", FLOAT, None)], HEAD, sizes={"x": (3, 3, 8, 8)}),
    "half": File([*FIRST, *LAST], [("x", HALF, ["n", 3, 8, 8])], [("y", HALF, None)],
                 {k: v.astype(np.float16) for k, v in HEAD.items()}, sizes={"x": (2, 3, 8, 8)}),
    "half inside": File([node("Cast", ["x"], ["c"], to=HALF), node("Conv", ["c", "w"], ["h"], pads=[1, 1, 1, 1]),
                         node("Relu", ["h"], ["r"]), *LAST], [("x", FLOAT, ["n", 3, 8, 8])], [("y", HALF, None)],
                        {k: v.astype(np.float16) for k, v in HEAD.items()}, sizes={"x": (2, 3, 8, 8)}),
    "any image": File([*FIRST, *LAST], IMAGE, [("y", FLOAT, ["n", 4, "height", "width"])], HEAD, ("3x16x16",),
                      sizes=LARGER),
    "any image, enlarged by factors": File(
        [*FIRST, *DOWN, node("Resize", ["q", "", "by"], ["u"], mode="linear"), *UP], IMAGE, [("y", FLOAT, None)],
        {**PYRAMID, "by": np.array([1, 1, 2, 2], np.float32)}, ("3x16x16",), sizes=LARGER),
    "any image, enlarged to a size": File(
        [*FIRST, *DOWN, *SHAPES, node("Resize", ["q", "", "", "sizes"], ["u"], mode="nearest",
                                      coordinate_transformation_mode="asymmetric", nearest_mode="floor"), *UP],
        IMAGE, [("y", FLOAT, None)], {**PYRAMID, **NUMBERS}, ("3x16x16",), sizes=LARGER),
    "any image, aligned to a size": File(
        [*FIRST, *DOWN, *SHAPES, node("Resize", ["q", "", "", "sizes"], ["u"], mode="linear",
                                      coordinate_transformation_mode="align_corners"), *UP],
        IMAGE, [("y", FLOAT, None)], {**PYRAMID, **NUMBERS}, ("3x16x16",), sizes=LARGER),
    "tokens of any image": File(
        [*FIRST, node("Shape", ["r"], ["s"]), node("Slice", ["s", "zero", "two"], ["nc"]),
         node("Concat", ["nc", "open"], ["sizes"], axis=0), node("Reshape", ["r", "sizes"], ["t"]),
         node("Transpose", ["t"], ["tt"], perm=[0, 2, 1]), node("MatMul", ["tt", "wl"], ["y"])],
        IMAGE, [("y", FLOAT, None)], {**HEAD, **NUMBERS, "wl": weights(16, 5)}, ("3x16x16",), sizes=LARGER),
    "sound of any length": File(
        [node("Conv", ["x", "w"], ["h"], pads=[1, 1]), node("Relu", ["h"], ["r"]), *LAST], WAVE, [("y", FLOAT, None)],
        {"w": weights(16, 3, 3), "w2": weights(4, 16, 1)}, ("3x64",), sizes={"x": (2, 3, 100)}),
    "a bound number": File(
        [node("Conv", ["x", "w"], ["h"], pads=[1, 1]), node("Relu", ["h"], ["r"]), node("Equal", ["sr", "k"], ["is"]),
         node("If", ["is"], ["o"], then_branch=IS_FAST, else_branch=IS_SLOW), node("Conv", ["o", "w2"], ["y"])],
        [*WAVE, ("sr", INT64, [])], [("y", FLOAT, None)],
        {"w": weights(16, 3, 3), "w2": weights(4, 16, 1), **FACTORS},
        ("x:3x64", "sr=16000"), sizes={"x": (2, 3, 100), "sr": ()}),
    "a bound number in a vector": File(
        [node("Mul", ["x", "temperature"], ["z"]), node("Conv", ["z", "w"], ["h"], pads=[1, 1, 1, 1]),
         node("Relu", ["h"], ["r"]), *LAST], [("temperature", FLOAT, [1]), ("x", FLOAT, ["n", 3, 8, 8])],
        [("y", FLOAT, None)], HEAD, ("temperature=0.5",), sizes={"temperature": (1,), "x": (2, 3, 8, 8)}),
}  # fmt: skip
VALUES = {"sr": 16000, "temperature": 0.5}
METADATA = {"character": "a\nb\n\u00e9", "names": "{0: 'person'}", "stride": "32"}


def smaller(program: Program) -> Program:
    pruned, _ = compressor.prune(program, compressor.PruneSettings(ratio=1.3, method="magnitude", retrain_recipe=None))
    small, _ = compressor.compact(pruned)
    return small


def through_a_file(program: Program, path: Path) -> Program:
    compressor.save(program, path, force=True)
    return compressor.load(path)


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def contract(path: Path) -> list[tuple[str, str, int, list[bool]]]:
    """Name, type, rank and which sizes are open, of every input; name and type of every output."""
    opened = session(path)
    ins = [(v.name, v.type, len(v.shape), [isinstance(n, str) for n in v.shape]) for v in opened.get_inputs()]
    return [*ins, *((v.name, v.type, 0, []) for v in opened.get_outputs())]


def feeds(path: Path, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
    rng = np.random.default_rng(3)
    return {
        v.name: np.full(sizes[v.name], VALUES[v.name], kinds[v.type])
        if v.name in VALUES
        else rng.standard_normal(sizes[v.name]).astype(kinds[v.type])
        for v in session(path).get_inputs()
    }


@pytest.mark.parametrize("what", FILES)
def test_what_comes_out_takes_the_place_of_what_went_in(what: str, tmp_path: Path) -> None:
    file, path, small = FILES[what], tmp_path / "m.onnx", tmp_path / "small.onnx"
    file.write(path, METADATA)
    program = compressor.load(path, inputs=[parse_input(text, i) for i, text in enumerate(file.told)])
    program = through_a_file(smaller(through_a_file(program, tmp_path / "a.pt")), tmp_path / "b.pt")
    report = compressor.export(program, small)
    assert contract(small) == contract(path) and report.notes == ()
    kept = session(small).get_modelmeta().custom_metadata_map
    assert {key: text for key, text in kept.items() if not key.startswith("compress.")} == METADATA
    given = feeds(path, file.sizes or {})
    wanted, found = session(path).run(None, given), session(small).run(None, given)
    assert [x.shape for x in found] == [x.shape for x in wanted] and report.n_params < 0.9 * sum(
        v.size for v in file.constants.values() if v.dtype != np.int64
    )


@pytest.mark.parametrize("what", FILES)
def test_an_export_that_nothing_was_cut_from_computes_the_same(what: str, tmp_path: Path) -> None:
    file, path, again = FILES[what], tmp_path / "m.onnx", tmp_path / "again.onnx"
    file.write(path)
    compressor.export(compressor.load(path, inputs=[parse_input(t, i) for i, t in enumerate(file.told)]), again)
    given = feeds(path, file.sizes or {})
    for mine, its in zip(session(again).run(None, given), session(path).run(None, given), strict=True):
        np.testing.assert_allclose(mine, its, atol=4e-3 if mine.dtype == np.float16 else 1e-5)


def test_half_precision_inside_keeps_what_was_promised(tmp_path: Path) -> None:
    for what in ("half", "names"):
        path, small = FILES[what].write(tmp_path / f"{what}.onnx"), tmp_path / f"{what}.small.onnx"
        compressor.export(compressor.load(path), small, fp16=True)
        assert contract(small) == contract(path)


def test_a_network_that_holds_its_size_says_so(tmp_path: Path) -> None:
    file = File([*FIRST, node("Flatten", ["r"], ["t"]), node("MatMul", ["t", "wl"], ["y"])], IMAGE,
                [("y", FLOAT, None)], {**HEAD, "wl": weights(16 * 64, 5)}, ("3x8x8",))  # fmt: skip
    path = file.write(tmp_path / "m.onnx")
    program = compressor.load(path, inputs=[parse_input("3x8x8")])
    assert any("leaves open are fixed, x 3x8x8" in note for note in program.record.notes)
    compressor.export(program, tmp_path / "s.onnx")
    assert session(tmp_path / "s.onnx").get_inputs()[0].shape == ["n", 3, 8, 8]


def test_sizes_that_turn_out_to_be_fixed_are_noted(tmp_path: Path) -> None:
    file = FILES["any image"]
    program = compressor.load(file.write(tmp_path / "m.onnx"), inputs=[parse_input("3x8x8")])
    held = next(n for n in program.module.graph.nodes if n.op == "call_function")
    with program.module.graph.inserting_after(held):  # as a compaction might leave it
        shaped = program.module.graph.call_function(torch.ops.aten.expand.default, (held, [-1, 16, 8, 8]))
    held.replace_all_uses_with(shaped, delete_user_cb=lambda user: user is not shaped)
    program.module.recompile()
    report = compressor.export(program, tmp_path / "s.onnx")
    assert "sizes that the original leaves open are fixed: x 3x8x8" in report.notes[0]
    assert session(tmp_path / "s.onnx").get_inputs()[0].shape == ["n", 3, 8, 8]


def test_other_sizes_are_said_and_not_taken_silently(tmp_path: Path) -> None:
    path = FILES["names"].write(tmp_path / "m.onnx")
    program = compressor.load(path, inputs=[parse_input("3x12x12")])
    assert any("--input gives x as 3x12x12 where the file has 3x8x8" in note for note in program.record.notes)
    same = compressor.load(path, inputs=[parse_input("3x8x8")])
    assert not any("--input" in note for note in same.record.notes)


def test_a_number_that_is_not_bound_is_asked_for(tmp_path: Path) -> None:
    path = FILES["a bound number"].write(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="--input sr=NUMBER"):
        compressor.load(path, inputs=[parse_input("x:3x64")])
    with pytest.raises(UsageError, match="is no shape"):
        compressor.load("init", arch="lenet5", inputs=[parse_input("x=0.5")])


def test_a_checkpoint_without_an_interface_opens_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    program = compressor.load(FILES["names"].write(tmp_path / "m.onnx"))
    older = program.replace(record=replace(program.record, interface=None))
    assert through_a_file(older, tmp_path / "a.pt").record.interface is None
    interface = program.record.interface
    assert interface is not None and through_a_file(program, tmp_path / "b.pt").record.interface == interface
    (x,) = interface.inputs
    wrongs = [replace(x, dtype="text"), replace(x, shape=(1,)), replace(x, shape=("n", 3, -1, 8))]
    several = [replace(interface, outputs=interface.outputs * 2), replace(interface, inputs=())]
    for wrong in (*several, *(replace(interface, inputs=(port,)) for port in wrongs)):
        compressor.save(program.replace(record=replace(program.record, interface=wrong)), tmp_path / "c.pt", force=True)
        with pytest.raises(CompressError, match="its interface has"):
            compressor.load(tmp_path / "c.pt")


def test_twin_a_file_that_is_wrong_at_other_sizes_is_not_written_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compressor.load(FILES["any image"].write(tmp_path / "m.onnx"), inputs=[parse_input("3x8x8")])
    real = verify.FileComparison._check

    def check(self: Any, own: Any, other: Any, kind: Any, batch: Any) -> Any:
        if own[0].shape[-1] != 8:
            raise verify.VerificationError("differs")
        return real(self, own, other, kind, batch)

    monkeypatch.setattr(verify.FileComparison, "_check", check)
    report = compressor.export(program, tmp_path / "s.onnx")
    assert "differs" in report.notes[0] and session(tmp_path / "s.onnx").get_inputs()[0].shape == ["n", 3, 8, 8]


NAMES = (
    "self", "class", "lambda", "None", "forward", "input", "print", "train", "type", "graph", "torch", "inf", "nan",
    "device", "code", "parameters", "_0", "__class__", "fx_pytree", "Ellipsis", "a b", "1st", "x:0", "out=1", "from",
    "match", "ops", "math", "data", "training", "len", "eval", "_modules",
)  # fmt: skip


def test_inputs_and_outputs_may_have_any_names(tmp_path: Path) -> None:
    constants = {"w": weights(4, 16), "b": weights(16), "w2": weights(16, 4)}
    nodes = [node("Sum", list(NAMES), ["all"]), node("Gemm", ["all", "w", "b"], ["h"]), node("Relu", ["h"], ["r"])]
    nodes += [node("MatMul", ["r", "w2"], ["last"])]
    nodes += [node("Mul", ["last", name], [f"{name}_"]) for name in NAMES]
    outputs: Ports = [(f"{name}_", FLOAT, None) for name in NAMES]
    path = File(nodes, [(name, FLOAT, ["n", 4]) for name in NAMES], outputs, constants).write(tmp_path / "m.onnx")
    program = through_a_file(smaller(compressor.load(path)), tmp_path / "a.pt")
    compressor.export(program, tmp_path / "s.onnx")
    assert contract(tmp_path / "s.onnx") == contract(path)
    given = feeds(path, dict.fromkeys(NAMES, (2, 4)))
    wanted, found = session(path).run(None, given), session(tmp_path / "s.onnx").run(None, given)
    assert [x.shape for x in found] == [x.shape for x in wanted]


def test_the_last_open_size_grows_alone_and_then_all_others() -> None:
    port = Port("x", "float32", ("N", "channels", 4, "H", "W"))
    spec = InputSpec("x", (None, 3, 4, 5, 6))
    interface = Interface((port,), ())
    assert [interface.grown([spec], last)[0].shape for last in (True, False)] == [
        (None, 3, 4, 5, 12),
        (None, 6, 4, 10, 6),
    ]


@pytest.mark.parametrize(
    ("port", "sound"),
    [
        (Port("x", "float32", (1, 2)), True),
        (Port("x", "float32", (0, 2)), False),
        (Port("x", "float32", ("N", -1)), False),
        (Port("x", "float33", (1, 2)), False),
        (Port("x", "", None), True),
        (Port("x", "float32", (1,), 2.0), True),
        (Port("x", "float32", (), 2.0), True),
        (Port("x", "float32", (2,), 2.0), False),
        (Port("x", "float32", (1,), float("nan")), False),
    ],
)
def test_a_port_is_what_a_tensor_can_be(port: Port, sound: bool) -> None:
    assert port.is_sound is sound
