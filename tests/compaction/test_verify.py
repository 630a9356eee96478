"""The verification: it agrees with itself, and it fails on every kind of disagreement."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.compaction.verify import verify
from compressor.errors import VerificationError
from compressor.program import InputSpec, Program, capture


def nudged(program: Program, by: float) -> Program:
    other = program.clone()
    with torch.no_grad():
        other.parameters["out.bias"][0].add_(by)
    return other


def test_a_program_agrees_with_itself(dense: Program) -> None:
    agreement = verify(dense, dense.clone())
    assert (agreement.float64_relative, agreement.float32_relative, agreement.n_inputs) == (0.0, 0.0, 2)


@pytest.mark.parametrize(("by", "precision"), [(1e-1, "float64"), (1e-4, "float64")])
def test_a_difference_is_an_error_that_names_it(dense: Program, by: float, precision: str) -> None:
    with pytest.raises(VerificationError, match=rf"differ by .* of the largest output .* in {precision}"):
        verify(dense, nudged(dense, by))


def test_a_difference_only_on_real_inputs_is_seen() -> None:
    class Rare(nn.Module):
        def __init__(self, far: float) -> None:
            super().__init__()
            self.out, self.far = nn.Linear(3, 2), far

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x) + self.far * (x.sum(1, keepdim=True) > 50)

    spec = [InputSpec("x", (None, 3))]
    one, other = Rare(1.0), Rare(2.0)
    other.load_state_dict(one.state_dict())
    a, b = capture(one, spec), capture(other, spec)
    assert verify(a, b).float64_relative == 0.0
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        verify(a, b, [(torch.full((2, 3), 100.0),)])


def test_outputs_that_are_not_finite_never_agree(dense: Program) -> None:
    broken = dense.clone()
    with torch.no_grad():
        broken.parameters["out.bias"][0] = float("nan")
    for pair in ((dense, broken), (broken, dense), (broken, broken.clone())):
        with pytest.raises(VerificationError, match="differ by nan"):
            verify(*pair)


def test_another_shape_is_a_difference() -> None:
    spec = [InputSpec("x", (None, 3))]
    with pytest.raises(VerificationError, match="differ by nan"):
        verify(capture(nn.Linear(3, 2), spec), capture(nn.Linear(3, 4), spec))


def test_every_output_of_a_structure_is_compared() -> None:
    class Pair(nn.Module):
        def __init__(self, second: float) -> None:
            super().__init__()
            self.second = second

        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"a": x * 2, "b": (x + 1, x * self.second)}

    spec = [InputSpec("x", (None, 3))]
    assert verify(capture(Pair(1.0), spec), capture(Pair(1.0), spec)).float64_relative == 0.0
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        verify(capture(Pair(1.0), spec), capture(Pair(1.5), spec))


class TwoSizes(nn.Module):
    """Two outputs, the second far smaller; `apart` are their relative errors."""

    def __init__(self, small: float, apart: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__()
        self.by = [1.0 + apart[0], small * (1.0 + apart[1])]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * self.by[0], x.sum(1) * self.by[1]


def test_a_large_output_does_not_hide_what_is_wrong_with_a_small_one() -> None:
    spec = [InputSpec("x", (None, 3))]
    right, wrong = capture(TwoSizes(1e-4), spec), capture(TwoSizes(1e-4, (0.0, 1e-8)), spec)
    assert verify(right, right.clone()).float64_relative == 0.0
    with pytest.raises(VerificationError, match="in float64"):
        verify(right, wrong)  # 1e-12 of the larger output
    assert verify(right, capture(TwoSizes(1e-4, (1e-13, 1e-13)), spec)).float64_relative < 1e-12


@pytest.mark.parametrize("of", [1.0, 1e6])
def test_what_is_left_of_large_values_may_hold_their_rounding(of: float) -> None:
    class Cancelled(nn.Module):
        def __init__(self, order: bool) -> None:
            super().__init__()
            self.order = order

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            a, b = x * of, x * (of / 3)
            left = (a - b) - b - b if self.order else a - (b + b + b)
            return a, left

    spec = [InputSpec("x", (None, 50))]
    one, other = capture(Cancelled(True), spec), capture(Cancelled(False), spec)
    assert float(one.module(*one.example_inputs(3))[1].abs().max()) < 1e-6 * of
    assert 0 < verify(one, other).float64_relative < 1e-10


def test_outputs_of_nothing_but_zeros_agree_with_nothing_else() -> None:
    spec = [InputSpec("x", (None, 3))]
    zeros = capture(TwoSizes(0.0, (-1.0, 0.0)), spec)
    assert verify(zeros, zeros.clone()).float64_relative == 0.0
    with pytest.raises(VerificationError, match="differ by"):
        verify(zeros, capture(TwoSizes(1e-9, (-1.0, 0.0)), spec))


def test_outputs_may_be_truth_values() -> None:
    class Above(nn.Module):
        def __init__(self, than: float) -> None:
            super().__init__()
            self.than = than

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x > self.than

    spec = [InputSpec("x", (None, 30))]
    assert verify(capture(Above(0.0), spec), capture(Above(0.0), spec)).float64_relative == 0.0
    with pytest.raises(VerificationError, match="differ by"):
        verify(capture(Above(0.0), spec), capture(Above(0.5), spec))


def test_nothing_is_left_of_the_verification(dense: Program) -> None:
    before = {name: tensor.clone() for name, tensor in dense.module.tensors().items()}
    flags = [node.args for node in dense.module.graph.nodes]
    dense.module.train()
    verify(dense, dense.clone(), exact={"out.bias": before["out.bias"].double()})
    assert dense.module.training and torch.get_default_dtype() == torch.float32
    dense.module.eval()
    assert [node.args for node in dense.module.graph.nodes] == flags
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.module.tensors().items())


def test_a_network_with_a_fixed_batch_is_verified_at_that_batch() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.view(1, 3))

    program = capture(Fixed(), [InputSpec("x", (None, 3))])
    assert not program.has_dynamic_batch
    assert verify(program, program.clone()).n_inputs == 1


def test_tensors_that_were_rounded_count_as_they_were_computed(dense: Program) -> None:
    stored, whole = dense.clone(), dense.clone()
    exact = whole.parameters["out.bias"].detach().double() * (1 + 1e-9)
    precise = dense.replace(module=dense.module.clone(torch.float64))
    with torch.no_grad():
        precise.parameters["out.bias"].copy_(exact)
    with pytest.raises(VerificationError, match="in float64"):
        verify(precise, stored)
    assert verify(precise, stored, exact={"out.bias": exact}).float64_relative < 1e-12


def test_in_half_precision_storage_is_not_what_is_compared(dense: Program) -> None:
    half = dense.replace(module=dense.module.clone(torch.float16))
    nudge = half.clone()
    exact = half.parameters["out.bias"].detach().double() + 1e-3
    with torch.no_grad():
        nudge.parameters["out.bias"].copy_(exact)
    precise = dense.replace(module=half.module.clone(torch.float64))
    with torch.no_grad():
        precise.parameters["out.bias"].copy_(exact)
    assert verify(precise, nudge, exact={"out.bias": exact}).float32_relative < 1e-5
    with pytest.raises(VerificationError, match="differ by"):
        verify(precise, nudge)
