"""Files that export writes: what is in them, when there is none."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn

from compressor.asking import export as export_form
from compressor.asking.export import HIGHEST_OPSET, LOWEST_OPSET
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import DataError, ModelError, OutputError, UsageError, VerificationError
from compressor.exporting import LIMITS, export, export_onnx
from compressor.program import InputSpec, Program, capture

Build = Callable[[str], Program]


def run(path: Path, *inputs: torch.Tensor) -> list[np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {given.name: x.numpy() for given, x in zip(session.get_inputs(), inputs, strict=True)}
    return [np.asarray(output) for output in session.run(None, feeds)]


def digits(shape: tuple[int, ...] = (1, 8, 8)) -> ArraySource:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn((30, *shape), generator=generator), torch.randint(0, 5, (30,), generator=generator)
    return ArraySource("fake", Arrays(x, y), Arrays(x, y), 5)


@pytest.mark.parametrize("name", ["plain", "normalised"])
def test_written_file_computes_the_program_at_a_batch_that_was_not_checked(
    program_of: Build, tmp_path: Path, name: str
) -> None:
    program = program_of(name)
    report = export_onnx(program, tmp_path / "m.onnx")
    (x,) = program.example_inputs(7, seed=3)
    with torch.no_grad():
        expected = program.module(x).numpy()
    np.testing.assert_allclose(run(tmp_path / "m.onnx", x)[0], expected, atol=1e-5)
    assert report.max_rel <= report.limit == LIMITS[torch.float32]
    assert report.batch_sizes == (1, 2, 5)
    assert (report.on_data, report.top1_agreement, report.external_data) == (False, None, False)
    assert report.size_bytes == (tmp_path / "m.onnx").stat().st_size
    assert report.path == str(tmp_path / "m.onnx")


def test_only_the_file_is_left_in_the_directory(program_of: Build, tmp_path: Path) -> None:
    export_onnx(program_of("plain"), tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_parameters_in_the_file_are_those_of_the_program(program_of: Build) -> None:
    program = program_of("plain")
    stream = io.BytesIO()
    report = export_onnx(program, stream)
    assert report.n_params == report.n_program_params == program.n_parameters
    names = {tensor.name for tensor in onnx.load_from_string(stream.getvalue()).graph.initializer}
    assert set(program.parameters) <= names


def test_folded_normalisation_is_counted_as_what_is_in_the_file(program_of: Build) -> None:
    program = program_of("normalised")
    report = export_onnx(program, io.BytesIO())
    n_folded, n_new_biases = 2 * 2 * 4, 4
    assert report.n_params == program.n_parameters - n_folded + n_new_biases
    assert report.n_program_params == program.n_parameters


def test_masked_weights_are_zero_in_the_file(program_of: Build) -> None:
    program = program_of("plain")
    mask = torch.rand(program.parameters["hidden.weight"].shape) > 0.7
    with torch.no_grad():
        program.parameters["hidden.weight"].mul_(mask)
    stream = io.BytesIO()
    export_onnx(program.replace(masks={"hidden.weight": mask}), stream)
    model = onnx.load_from_string(stream.getvalue())
    (written,) = (t for t in model.graph.initializer if t.name == "hidden.weight")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(written) != 0, mask.numpy())


def test_same_program_gives_the_same_bytes_without_paths_of_this_machine(program_of: Build) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    export_onnx(program_of("normalised"), first)
    export_onnx(program_of("normalised"), second)
    assert first.getvalue() == second.getvalue()
    assert b"conftest" not in first.getvalue()
    assert b"site-packages" not in first.getvalue()


def test_nothing_is_printed(program_of: Build, capfd: pytest.CaptureFixture[str]) -> None:
    export_onnx(program_of("normalised"), io.BytesIO(), opset=18)
    assert capfd.readouterr() == ("", "")


def test_program_is_left_as_it_was(program_of: Build) -> None:
    program = program_of("normalised")
    program.module.train()
    before = {name: tensor.clone() for name, tensor in program.module.tensors().items()}
    code = program.module.code
    export_onnx(program, io.BytesIO())
    assert program.module.training and program.module.code == code
    assert all(torch.equal(before[name], tensor) for name, tensor in program.module.tensors().items())


def test_fixed_batch_is_checked_at_that_batch(program_of: Build, tmp_path: Path) -> None:
    program = program_of("fixed-batch")
    report = export_onnx(program, tmp_path / "m.onnx")
    assert report.batch_sizes == (1,)
    (given,) = onnx.load(str(tmp_path / "m.onnx")).graph.input
    assert given.type.tensor_type.shape.dim[0].dim_value == 1


def test_the_batch_can_be_fixed(program_of: Build, tmp_path: Path) -> None:
    report = export_onnx(program_of("plain"), tmp_path / "m.onnx", batch=3, data=digits())
    assert (report.batch, report.batch_sizes, report.top1_agreement) == (3, (3,), 1.0)
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    dims = [value.type.tensor_type.shape.dim[0] for value in (*graph.input, *graph.output)]
    assert [dim.dim_value for dim in dims] == [3, 3]
    with pytest.raises(UsageError, match=r"--batch 3: .*fixes the batch at 1"):
        export_onnx(program_of("fixed-batch"), io.BytesIO(), batch=3)


def test_every_check_is_in_the_report(program_of: Build) -> None:
    report = export_onnx(program_of("plain"), io.BytesIO(), batch_sizes=(1, 4), data=digits())
    assert [(check.inputs, check.batch) for check in report.checks] == [
        ("random", 1),
        ("random", 4),
        ("validation", None),
    ]
    assert max(check.max_rel for check in report.checks) == report.max_rel
    assert report.batch_sizes == (1, 4)


def test_several_inputs_and_outputs_keep_their_names_and_order(program_of: Build, tmp_path: Path) -> None:
    program = program_of("several")
    export_onnx(program, tmp_path / "m.onnx")
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    assert [value.name for value in graph.input] == ["ids", "x"]
    assert [value.name for value in graph.output] == ["ids_output", "pooled", "same"]
    dims = [v.type.tensor_type.shape.dim[0].dim_param for v in (*graph.input, *graph.output)]
    assert dims == ["batch"] * 5
    inputs = program.example_inputs(3, seed=1)
    with torch.no_grad():
        expected = program.module(*inputs)
    for got, wanted in zip(run(tmp_path / "m.onnx", *inputs), expected.values(), strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("opset", [LOWEST_OPSET, 18, HIGHEST_OPSET])
def test_opset_is_the_one_asked_for(program_of: Build, opset: int) -> None:
    stream = io.BytesIO()
    assert export_onnx(program_of("plain"), stream, opset=opset).opset == opset
    assert onnx.load_from_string(stream.getvalue()).opset_import[0].version == opset


@pytest.mark.parametrize("opset", [LOWEST_OPSET - 1, HIGHEST_OPSET + 1])
def test_opset_that_cannot_be_written_is_refused(program_of: Build, opset: int) -> None:
    with pytest.raises(UsageError, match=rf"--opset {opset}: must be {LOWEST_OPSET} to {HIGHEST_OPSET}"):
        export_onnx(program_of("plain"), io.BytesIO(), opset=opset)


def test_opset_that_this_model_cannot_have_is_refused(program_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_form, "LOWEST_OPSET", 9)
    with pytest.raises(UsageError, match=r"--opset 9: onnxscript cannot bring this model there, it got to \d+"):
        export_onnx(program_of("plain"), io.BytesIO(), opset=9)


def test_opset_that_this_onnx_does_not_know_is_refused(program_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 20)
    with pytest.raises(UsageError, match=r"--opset 21: onnx .* here knows them up to 20; update it"):
        export_onnx(program_of("plain"), io.BytesIO(), opset=21)


def test_existing_file_stays_unless_forced(program_of: Build, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export_onnx(program_of("plain"), target)
    assert target.read_text() == "mine"
    export_onnx(program_of("plain"), target, force=True)
    assert target.read_bytes() != b"mine"


def break_first_weight(model: ir.Model) -> None:
    value = next(value for value in model.graph.initializers.values() if value.const_value is not None)
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * 1.01, name=value.name)


def break_graph(model: ir.Model) -> None:
    next(iter(model.graph)).op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_first_weight, "differ by .* on a random batch of 1"),
        (break_graph, "not valid: .*NoSuchOperator"),
    ],
)
def test_a_wrong_file_is_never_written(
    program_of: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[ir.Model], None],
    message: str,
) -> None:
    genuine = export.to_onnx

    def damaged(program: Program, module: nn.Module, opset: int | None, batch: int | None) -> ir.Model:
        model = genuine(program, module, opset, batch)
        damage(model)
        return model

    monkeypatch.setattr(export, "to_onnx", damaged)
    stream = io.BytesIO()
    for target in (tmp_path / "m.onnx", stream):
        with pytest.raises(VerificationError, match=message):
            export_onnx(program_of("plain"), target)
    assert list(tmp_path.iterdir()) == []
    assert stream.getvalue() == b""


def test_large_weights_go_into_a_file_beside_it(
    program_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EXTERNAL_ABOVE_BYTES", 100)
    program = program_of("plain")
    report = export_onnx(program, tmp_path / "m.onnx")
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["m.onnx", "m.onnx.data"]
    assert report.external_data and report.size_bytes == sum(path.stat().st_size for path in files)
    (x,) = program.example_inputs(2)
    with torch.no_grad():
        expected = program.module(x).numpy()
    np.testing.assert_allclose(run(tmp_path / "m.onnx", x)[0], expected, atol=1e-5)
    with pytest.raises(OutputError, match="give -o PATH"):
        export_onnx(program, io.BytesIO())


def test_data_are_compared_too(program_of: Build) -> None:
    report = export_onnx(program_of("plain"), io.BytesIO(), data=digits())
    assert report.on_data and report.top1_agreement == 1.0


def test_data_of_another_shape_are_refused(program_of: Build, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"samples are \(\(1, 9, 9\),\), the model reads \(\(1, 8, 8\),\)"):
        export_onnx(program_of("plain"), tmp_path / "m.onnx", data=digits((1, 9, 9)))
    assert list(tmp_path.iterdir()) == []


def test_model_without_an_onnx_form_is_named(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(x)[0]

    program = capture(Odd(), [InputSpec("x", (None, 4, 4))])
    with pytest.raises(ModelError, match=r"no ONNX form: .*linalg_qr") as caught:
        export_onnx(program, tmp_path / "m.onnx")
    assert len(str(caught.value).splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_written_as_float32_and_that_is_said(tmp_path: Path) -> None:
    program = capture(nn.Linear(4, 2).to(torch.bfloat16), [InputSpec("x", (None, 4))])
    report = export_onnx(program, tmp_path / "m.onnx")
    assert report.notes == (
        "the weights are bfloat16 and the file holds float32: onnxruntime has no CPU kernels for bfloat16",
    )
    (weight,) = [t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if len(t.dims) == 2]
    assert weight.data_type == onnx.TensorProto.FLOAT
    assert program.parameters["weight"].dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_have_their_own_limit(dtype: torch.dtype) -> None:
    program = capture(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype), [InputSpec("x", (None, 6))])
    report = export_onnx(program, io.BytesIO())
    assert report.max_rel <= report.limit == LIMITS[dtype]


def test_batch_sizes_are_checked(program_of: Build) -> None:
    with pytest.raises(UsageError, match=r"--check-batch 0: give one or more"):
        export_onnx(program_of("plain"), io.BytesIO(), batch_sizes=(0,))
    with pytest.raises(UsageError, match=r"--check-batch : give one or more"):
        export_onnx(program_of("plain"), io.BytesIO(), batch_sizes=())


def test_a_program_whose_graph_fixes_the_batch_says_so(program_of: Build) -> None:
    fixed = program_of("fixed-batch")
    claims_dynamic = fixed.replace(inputs=(replace(fixed.inputs[0], shape=(None, 4, 4)),))
    with pytest.raises(ModelError, match=r"cannot be exported|fixes the batch"):
        export_onnx(claims_dynamic, io.BytesIO())
