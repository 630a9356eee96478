"""Damaged, hostile and unusual files: refused with a reason, within the memory that the file itself takes."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from compressor.errors import ModelError
from compressor.formats import load
from compressor.formats.onnx_import import import_onnx
from tests.formats.onnx_import.building import agrees, imported, model_of, numbers, one_node

node = helper.make_node


def gemm(n: int = 4) -> onnx.ModelProto:
    return model_of([node("Gemm", ["x", "fc.weight"], ["y"], name="fc")], {"x": ("N", n)}, {"fc.weight": numbers(n, 2)})


def external(model: onnx.ModelProto, location: str, **info: str) -> onnx.ModelProto:
    """The model with its first tensor in another file."""
    tensor = model.graph.initializer[0]
    external_data_helper.set_external_data(tensor, location, **{k: int(v) for k, v in info.items()})
    tensor.ClearField("raw_data")
    return model


def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    inside, outside = gemm(), external(gemm(), "w.bin")
    (tmp_path / "m.onnx").write_bytes(outside.SerializeToString())
    (tmp_path / "w.bin").write_bytes(inside.graph.initializer[0].raw_data)
    found = load(tmp_path / "m.onnx").parameters["fc.weight"]
    np.testing.assert_array_equal(found.detach().numpy().T, numbers(4, 2))


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "a/../../w.bin", ""])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    (folder / "m.onnx").write_bytes(external(gemm(), location).SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(folder / "m.onnx")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    (folder / "w.bin").symlink_to(tmp_path / "w.bin")
    (folder / "m.onnx").write_bytes(external(gemm(), "w.bin").SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(folder / "m.onnx")


def test_weights_that_are_missing_or_too_short_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(external(gemm(), "w.bin").SerializeToString())
    with pytest.raises(ModelError, match=r"its weights are in w\.bin, which cannot be read"):
        load(path)
    (tmp_path / "w.bin").write_bytes(bytes(31))
    with pytest.raises(ModelError, match=r"declares 32 bytes at 0, w\.bin has 31"):
        load(path)
    path.write_bytes(external(gemm(), "w.bin", offset="8", length="4").SerializeToString())
    (tmp_path / "w.bin").write_bytes(bytes(64))
    with pytest.raises(ModelError, match="declares 32 bytes at 8"):
        load(path)


def test_a_stream_has_no_files_beside_it() -> None:
    with pytest.raises(ModelError, match="give its path instead of a stream"):
        imported(external(gemm(), "w.bin"))


def huge(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    model = gemm()
    change(model)
    return model


def _declare(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2]


def _declare_typed(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0])


def _negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-4, -2]


def _text(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(helper.make_tensor("fc.weight", TensorProto.STRING, [1], [b"a"]))


def _missing(model: onnx.ModelProto) -> None:
    del model.graph.initializer[:]


def _circle(model: onnx.ModelProto) -> None:
    model.graph.node.append(node("Add", ["b", "x"], ["a"]))
    model.graph.node.append(node("Add", ["a", "x"], ["b"]))
    model.graph.node.append(node("Add", ["b", "y"], ["z"]))
    model.graph.output[0].name = "z"


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(node("Relu", ["x"], ["y"]))


def _old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 6


def _new(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def _attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("colour", 1))


def _huge_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**50


def _no_inputs(model: onnx.ModelProto) -> None:
    del model.graph.input[:]
    model.graph.initializer.append(numpy_helper.from_array(numbers(2, 4), "x"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_declare, r"fc.weight declares 2,199,023,255,552 elements and holds 8"),
        (_declare_typed, r"fc.weight declares 8 elements and holds 1"),
        (_negative, "holds text or has a negative size"),
        (_text, "holds text or has a negative size"),
        (_missing, "not valid ONNX"),
        (_circle, "not valid ONNX"),
        (_twice, "not valid ONNX"),
        (_old, "opset 6, the oldest that can be read is 7"),
        (_new, "opset 999, the installed onnx knows up to"),
        (_attribute, "not valid ONNX"),
        (_huge_input, "larger than any memory"),
        (_no_inputs, "has no inputs"),
    ],
)
def test_a_model_that_breaks_the_rules_is_refused(change: Callable[[onnx.ModelProto], None], told: str) -> None:
    assert imported(gemm()).n_parameters == 8
    with pytest.raises(ModelError, match=told):
        imported(huge(change))


@pytest.mark.parametrize(
    "model",
    [
        one_node("Expand", ("N", 1), [np.array([2**40, 1], np.int64)]),
        model_of([node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])], {"x": ("N", 4)},
                 {"s": np.array([2**20, 2**20, 4], np.int64)}),
        model_of([node("Range", ["a", "b", "o"], ["r"]), node("Add", ["x", "r"], ["y"])], {"x": ("N", 1)},
                 {"a": np.float32(0), "b": np.float32(1e12), "o": np.float32(1)}),
        model_of([node("Tile", ["k", "t"], ["r"]), node("Add", ["x", "r"], ["y"])], {"x": ("N", 1)},
                 {"k": numbers(4), "t": np.array([2**38], np.int64)}),
    ],
    ids=["expand", "fill", "range", "tile"],
)  # fmt: skip
def test_a_constant_that_would_fill_the_memory_is_not_made(model: onnx.ModelProto) -> None:
    try:
        program = imported(model)
    except ModelError as error:
        assert "makes constants of" in str(error) or "fit" in str(error)
    else:  # what is computed from the input is only described, and takes no memory before it is run
        assert sum(t.numel() for t in program.module.tensors().values()) < 100


def test_every_cut_off_file_is_refused() -> None:
    content = gemm().SerializeToString()
    for end in range(1, len(content)):
        with pytest.raises(ModelError, match=r"."):
            import_onnx(BytesIO(content[:end]), "m.onnx")


def test_damaged_bytes_are_a_model_error_or_another_model() -> None:
    content = gemm().SerializeToString()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for at in random.integers(0, len(content), 3):
            damaged[at] = random.integers(0, 256)
        try:
            import_onnx(BytesIO(bytes(damaged)), "m.onnx")
        except ModelError:
            refused += 1
    assert refused > 20


def test_sparse_tensors_are_made_dense() -> None:
    model = gemm()
    dense = np.zeros((4, 2), np.float32)
    dense[1, 1], dense[3, 0] = 2, -1
    values = helper.make_tensor("fc.weight", TensorProto.FLOAT, [2], [2.0, -1.0])
    for shape, positions in (([2], [3, 6]), ([2, 2], [1, 1, 3, 0])):
        indices = helper.make_tensor("i", TensorProto.INT64, shape, positions)
        del model.graph.initializer[:]
        del model.graph.sparse_initializer[:]
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 2]))
        np.testing.assert_array_equal(imported(model).parameters["fc.weight"].detach().numpy().T, dense)
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [3, 8])
    del model.graph.sparse_initializer[:]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 2]))
    with pytest.raises(ModelError, match=r"fc\.weight has positions"):
        imported(model)


def test_bfloat16_is_widened() -> None:
    model = gemm()
    model.graph.initializer[0].CopyFrom(
        helper.make_tensor("fc.weight", TensorProto.BFLOAT16, [4, 2], numbers(4, 2).ravel().tolist())
    )
    found = imported(model).parameters["fc.weight"].detach().numpy().T
    np.testing.assert_allclose(found, numbers(4, 2), rtol=1e-2)


def test_the_sample_is_a_sound_model() -> None:
    assert agrees(gemm()).record.notes[0].startswith("imported from ONNX: opset 17")
