"""The comparison of two runtimes, and that it can fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import onnx
import pytest
import torch
from torch import Tensor, nn

from compressor.data.arrays import Arrays, ArraySource
from compressor.data.source import DataSource
from compressor.errors import DataError, VerificationError
from compressor.exporting import export_onnx, verify
from compressor.exporting.verify import (
    FileComparison,
    SizesDifferError,
    Verification,
    check_data,
    check_file,
    limit_of,
    onnx_run,
)
from compressor.program import InputSpec, Interface, Program, capture
from compressor.program.interface import Port
from compressor.program.runs import Other


def compare(program: Program, path: Path, sizes: tuple[int, ...]) -> Verification:
    return FileComparison(program, onnx_run(path)).verification(sizes, None)


def test_a_file_of_other_weights_is_found_out(tmp_path: Path) -> None:
    first, second = (capture(nn.Linear(4, 3), [InputSpec("x", (None, 4))]) for _ in range(2))
    export_onnx(first, tmp_path / "m.onnx")
    found = compare(first, tmp_path / "m.onnx", (1, 3))
    assert found.worst.max_rel <= found.worst.limit == 1e-5 and found.batch_sizes == (1, 3)
    with pytest.raises(
        VerificationError, match=r"differ by .* of the largest output \(limit 1\.0e-05.*\) on a random batch of 1"
    ):
        compare(second, tmp_path / "m.onnx", (1,))


def test_outputs_without_a_finite_number_prove_nothing(tmp_path: Path) -> None:
    program = capture(nn.Linear(4, 3), [InputSpec("x", (None, 4))])
    export_onnx(program, tmp_path / "m.onnx")
    with torch.no_grad():
        program.parameters["bias"].fill_(float("nan"))
    with pytest.raises(VerificationError, match="no finite number"):
        compare(program, tmp_path / "m.onnx", (1,))


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07no model")
    with pytest.raises(VerificationError, match="not valid"):
        check_file(tmp_path / "m.onnx")


def test_another_number_of_inputs_or_outputs_is_said(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x - 1

    class Both(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    one = capture(nn.ReLU(), [InputSpec("x", (None, 4))])
    export_onnx(one, tmp_path / "m.onnx")
    with pytest.raises(VerificationError, match="there are 1 outputs where the model has 2"):
        compare(capture(Two(), [InputSpec("x", (None, 4))]), tmp_path / "m.onnx", (1,))
    with pytest.raises(VerificationError, match="reads 1 inputs, the model 2"):
        compare(capture(Both(), [InputSpec("x", (None, 4)), InputSpec("y", (None, 4))]), tmp_path / "m.onnx", (1,))


def test_a_file_whose_types_do_not_fit_is_refused_unless_they_are_not_asked_for(tmp_path: Path) -> None:
    kind, size = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    lies = onnx.helper.make_graph([node], "g", [size("x", kind, [1, 4])], [size("y", kind, [1, 5])])
    onnx.save(onnx.helper.make_model(lies), tmp_path / "m.onnx")
    with pytest.raises(VerificationError, match="not valid"):
        check_file(tmp_path / "m.onnx")
    assert check_file(tmp_path / "m.onnx", full=False) is None


class Between(nn.Module):
    """As many classes as asked for, all but equal: what tells them apart is far below what eight bits may be off."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("beside", 1e-3 * torch.arange(float(n_classes)))

    def forward(self, x: Tensor) -> Tensor:
        return 1 + x[:, :1] * self.beside


def samples(n: int = 20, sign: float = 1.0) -> ArraySource:
    x = sign * torch.linspace(0.5, 1, n).unsqueeze(1).expand(n, 4).contiguous()
    arrays = Arrays(x, torch.zeros(n, dtype=torch.int64))
    return ArraySource("samples", arrays, arrays, 2)


def turned(program: Program, n_wrong: int) -> verify.Run:
    """The program, the classes of its first samples in the opposite order."""

    def run(inputs: Sequence[Tensor]) -> Other:
        with torch.no_grad():
            own = program.module(*inputs)
        return Other(inputs, [torch.cat([own[:n_wrong].flip(1), own[n_wrong:]])])

    return run


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("n_wrong", "agrees"), [(0, True), (2, True), (3, False), (20, False)])
def test_an_int8_file_gives_nine_answers_of_ten_as_torch_does(n_classes: int, n_wrong: int, agrees: bool) -> None:
    program = capture(Between(n_classes), [InputSpec("x", (None, 4))])
    comparison = FileComparison(program, turned(program, n_wrong), precision="int8 dynamic")
    if agrees:
        assert comparison.verification((), samples()).top1_agreement == 1 - n_wrong / 20
        return
    with pytest.raises(VerificationError, match=rf"only {1 - n_wrong / 20:.1%} of the validation .* 90% is asked"):
        comparison.verification((), samples())


def test_only_of_int8_is_a_share_of_answers_asked() -> None:
    program = capture(Between(2), [InputSpec("x", (None, 4))])
    found = FileComparison(program, turned(program, 20), precision="fp16").verification((2,), samples())
    assert found.top1_agreement == 0.0 and found.batch_sizes == (2,)


@pytest.mark.parametrize(
    ("expected", "got", "counted"),
    [
        ([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]], [[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], (2, 3)),
        ([[1.0], [2.0]], [[1.0], [2.0]], (0, 0)),
        ([1.0, 2.0], [1.0, 2.0], (0, 0)),
        ([[1, 2]], [[1, 2]], (0, 0)),
        ([[[1.0, 2.0], [2.0, 1.0]]], [[[1.0, 4.0], [3.0, 1.0]]], (2, 2)),
        ([[[1.0, 2.0], [2.0, 1.0]]], [[[3.0, 0.0], [2.0, 1.0]]], (0, 2)),
    ],
)
def test_answers_are_counted_along_the_classes(expected: Any, got: Any, counted: tuple[int, int]) -> None:
    assert verify._same_top1(torch.tensor(expected), torch.tensor(got)) == counted


class Batches:
    """A data set of given batches."""

    ref = "batches"

    def __init__(self, *batches: tuple[Tensor, ...]) -> None:
        self.given, self.asked = batches, []

    def batches(self, split: str, size: int, *, limit: int) -> Iterator[Any]:
        self.asked.append((split, size, limit))
        yield from (SimpleNamespace(inputs=batch) for batch in self.given)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 4)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        return self.table(ids).sum(1) + x


def tokens(dtype: torch.dtype = torch.float32) -> Program:
    program = capture(Tokens(), [InputSpec("ids", (None, 3), "int64", high=300), InputSpec("x", (None, 4))])
    return program.replace(module=program.module.clone(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_data_come_in_the_types_of_the_inputs_and_ids_stay_whole(dtype: torch.dtype) -> None:
    """300 as a number of 16 bits is another id, and as a float none."""
    given = (torch.tensor([[299, 257, 0]], dtype=torch.int32), torch.ones(1, 4, dtype=torch.float64))
    data = Batches(given, (given[0].repeat(2, 1), given[1].repeat(2, 1)))
    ids, x = next(verify._data_inputs(tokens(dtype), cast(DataSource, data), 100, None))
    assert (ids.dtype, x.dtype) == (torch.int64, dtype) and ids.tolist() == [[299, 257, 0]]
    assert data.asked == [("val", 100, 1000)]
    sizes = [len(ids) for ids, _ in verify._data_inputs(tokens(), cast(DataSource, data), 2, 2)]
    assert sizes == [2], "whole batches only"


def test_static_ranges_are_compared_on_what_they_were_made_for() -> None:
    """Random inputs lie outside of the ranges; the samples do not."""
    program = capture(Between(2), [InputSpec("x", (None, 4))])
    seen: list[Tensor] = []

    def run(inputs: Sequence[Tensor]) -> Other:
        seen.append(inputs[0])
        return turned(program, 0)(inputs)

    found = FileComparison(program, run, precision="int8 static").verification((3,), samples(sign=7.0))
    assert [check.inputs for check in found.checks] == ["validation", "validation"] and found.batch_sizes == (3,)
    assert all(float(x.min()) >= 3.5 for x in seen)
    seen.clear()
    found = FileComparison(program, run, precision="int8 static").verification((3,), None)
    assert [check.inputs for check in found.checks] == ["random"] and found.top1_agreement is None
    found = FileComparison(program, run, precision="int8 dynamic").verification((3,), samples(sign=7.0))
    assert [check.inputs for check in found.checks] == ["random", "validation"]
    assert [float(x.min()) >= 3.5 for x in seen[-2:]] == [False, True]


def test_the_worst_check_is_told_and_where_it_was() -> None:
    program = capture(Between(2), [InputSpec("x", (None, 4))])

    def off(by: float) -> verify.Run:
        def run(inputs: Sequence[Tensor]) -> Other:
            with torch.no_grad():
                return Other(inputs, [program.module(*inputs) * (1 + (by if len(inputs[0]) == 3 else by / 10))])

        return run

    found = FileComparison(program, off(1e-6)).verification((1, 3), None)
    assert found.worst is found.checks[1] and found.worst.max_rel == pytest.approx(1e-6, rel=0.2)
    assert found.batch_sizes == (1, 3)
    with pytest.raises(VerificationError, match="on a random batch of 3"):
        FileComparison(program, off(5e-5)).verification((1, 3), None)
    with pytest.raises(VerificationError, match="on validation data"):
        FileComparison(program, off(1e-1)).verification((), samples())


def test_a_file_of_one_batch_size_is_compared_at_that() -> None:
    program = capture(Between(2), [InputSpec("x", (None, 4))])
    found = FileComparison(program, turned(program, 0), batch=5).verification((1, 2), samples())
    assert found.batch_sizes == (5,) and len(found.checks) == 2
    assert FileComparison(program, turned(program, 0), batch=64).verification((1,), samples()).top1_agreement is None


def test_limits_go_by_the_finest_weights_and_the_form() -> None:
    program = tokens()
    assert limit_of(program, "unchanged") == 1e-5
    assert limit_of(tokens(torch.float16), "unchanged") == 2e-2
    assert limit_of(tokens(torch.float64), "unchanged") == 1e-9
    assert limit_of(capture(nn.ReLU(), [InputSpec("x", (None, 4))]), "unchanged") == 1e-5
    assert [limit_of(program, form) for form in ("fp16", "int8 dynamic", "int8 static")] == [2e-2, 0.25, 0.25]


@pytest.mark.parametrize(
    ("weights", "outputs", "limit"),
    [
        (torch.float32, torch.float16, 2.0**-10),
        (torch.float32, torch.float32, 1e-5),
        (torch.float64, torch.float16, 2.0**-10),
        (torch.float16, torch.float16, 2e-2),
        (torch.float16, torch.float32, 2e-2),
    ],
)
def test_one_rounding_more_is_allowed_where_results_leave_as_half(
    weights: torch.dtype, outputs: torch.dtype, limit: float
) -> None:
    dtype = str(weights).removeprefix("torch.")
    program = capture(nn.Linear(4, 3).to(weights), [InputSpec("x", (None, 4), dtype)])

    def run(inputs: Sequence[Tensor]) -> Other:
        return Other(inputs, [program.module(*inputs).detach().to(outputs)])

    assert FileComparison(program, run).verification((2,), None).worst.limit == limit


class Mean(nn.Module):
    """Takes images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


def with_open_sizes(*dims: int | str, dtype: str = "float32") -> Program:
    interface = Interface((Port("x", dtype, ("N", 2, *dims)),), (Port("y", dtype, ("N", 3)),))
    return promising(capture(Mean(), [InputSpec("x", (None, 2, 4, 6))]), interface)


def promising(program: Program, interface: Interface | None) -> Program:
    return program.replace(record=replace(program.record, interface=interface))


@pytest.mark.parametrize(
    ("dims", "others"),
    [
        (("H", "W"), [(4, 12), (8, 6)]),
        ((4, "W"), [(4, 12)]),
        (("H", 6), [(8, 6)]),
        ((4, 6), []),
    ],
)
def test_a_file_with_open_sizes_is_compared_at_others_once(
    dims: tuple[int | str, ...], others: list[tuple[int, int]]
) -> None:
    program, seen = with_open_sizes(*dims), []

    def run(inputs: Sequence[Tensor], off_at: tuple[int, ...] = ()) -> Other:
        seen.append(tuple(inputs[0].shape))
        with torch.no_grad():
            return Other(inputs, [program.module(*inputs) * (1 + 1e-3 * (seen[-1][2:] == off_at))])

    found = FileComparison(program, run).verification((5, 3), None)
    assert seen == [(5, 2, 4, 6), (3, 2, 4, 6), *((5, 2, *size) for size in others)]
    assert [check.batch for check in found.checks] == [size[0] for size in seen]
    for size in others:
        with pytest.raises(SizesDifferError, match=r"at another size: the file and torch differ .* batch of 5"):
            FileComparison(program, partial(run, off_at=size)).verification((5, 3), None)


def test_free_dimensions_are_compared_at_other_lengths_and_batches() -> None:
    free = InputSpec("x", (None, 2, 4, 6), free=("", "", "", "time"))
    program, seen = capture(Mean(), [InputSpec("x", (None, 2, 4, 6))]).replace(inputs=(free,)), []

    def run(inputs: Sequence[Tensor]) -> Other:
        seen.append(tuple(inputs[0].shape))
        with torch.no_grad():
            return Other(inputs, [program.module(*inputs)])

    found = FileComparison(program, run).verification((5, 1), None)
    assert seen == [(5, 2, 4, 6), (1, 2, 4, 6), (5, 2, 4, 3), (1, 2, 4, 12)]
    assert [(check.batch, check.inputs) for check in found.checks] == [(size[0], "random") for size in seen]


def test_inputs_arrive_as_the_types_of_the_file_let_them_through() -> None:
    program, seen = with_open_sizes(4, 6, dtype="float16"), []

    def run(inputs: Sequence[Tensor]) -> Other:
        seen.append(inputs[0])
        with torch.no_grad():
            return Other(inputs, [program.module(*inputs)])

    FileComparison(program, run).verification((2,), None)
    FileComparison(promising(program, None), run).verification((2,), None)
    halved = [torch.equal(x, x.half().float()) for x in seen]
    assert halved == [True, False] and seen[0].dtype == torch.float32


def test_an_input_that_was_bound_is_given_its_number(tmp_path: Path) -> None:
    kind, size = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Mul", ["x", "scale"], ["y"])
    ports = [size("x", kind, ["N", 4]), size("scale", kind, [1])]
    graph = onnx.helper.make_graph([node], "g", ports, [size("y", kind, ["N", 4])])
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]),
        tmp_path / "m.onnx",
    )
    interface = Interface(
        (Port("x", "float32", ("N", 4)), Port("scale", "float32", (1,), 3.0)), (Port("y", "float32"),)
    )
    x = torch.arange(8.0).reshape(2, 4)
    (bound,) = onnx_run(tmp_path / "m.onnx", interface=interface)((x,)).outputs
    assert torch.equal(bound, 3 * x)
    (free,) = onnx_run(tmp_path / "m.onnx")((x, torch.tensor([2.0]))).outputs
    assert torch.equal(free, 2 * x)


def test_samples_of_another_shape_are_refused() -> None:
    program = capture(Between(2), [InputSpec("x", (None, 4))])
    assert check_data(program, samples()) is None
    with pytest.raises(DataError, match=r"samples: its samples are .* the model reads \(\(5,\),\)"):
        check_data(capture(nn.ReLU(), [InputSpec("x", (None, 5))]), samples())
    with pytest.raises(DataError, match=r"samples: its samples are .* the model reads \(\(3,\), \(4,\)\)"):
        check_data(tokens(), samples())


def test_data_come_in_hundreds_and_a_fixed_program_takes_one() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(1, 4) * 2

    seen: list[int] = []

    def counting(program: Program) -> verify.Run:
        def run(inputs: Sequence[Tensor]) -> Other:
            seen.append(len(inputs[0]))
            return turned(program, 0)(inputs)

        return run

    program = capture(Between(2), [InputSpec("x", (None, 4))])
    assert FileComparison(program, counting(program)).verification((), samples(250)).top1_agreement == 1.0
    assert seen == [100, 100, 50]
    seen.clear()
    fixed = capture(Fixed(), [InputSpec("x", (None, 4))])
    found = FileComparison(fixed, counting(fixed)).verification((3,), samples(2))
    assert found.batch_sizes == (1,) and seen == [1, 1, 1] and not fixed.has_dynamic_batch
