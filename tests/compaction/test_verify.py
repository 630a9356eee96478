"""The verification: it agrees with itself, and it fails on every kind of disagreement."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.compaction.verify import FLOAT32_LIMIT, FLOAT64_LIMIT, verify
from compressor.errors import VerificationError
from compressor.program import InputSpec, Program, capture
from tests.program.faults import Fault, faults_of
from tests.program.hard_to_compare import KINDS, captured, reordered

X = [InputSpec("x", (None, 3))]


def nudged(program: Program, by: float) -> Program:
    other = program.clone()
    with torch.no_grad():
        other.parameters["out.bias"][0].add_(by)
    return other


def test_a_program_agrees_with_itself(dense: Program) -> None:
    proof = verify(dense, dense.clone())
    assert (proof.float64_relative, proof.float32_relative, proof.n_inputs, proof.on_data) == (0.0, 0.0, 2, False)
    assert (proof.float64_limit, proof.float32_limit) == (FLOAT64_LIMIT, FLOAT32_LIMIT) == (1e-10, 1e-5)
    assert (proof.float64_judgment, proof.float32_judgment, proof.float32_noise) == ("limit", "limit", None)
    assert proof.decisions == ()


@pytest.mark.parametrize("by", [1e-1, 1e-4, 1e-6])
def test_a_difference_is_an_error_that_names_it(dense: Program, by: float) -> None:
    told = r"model differ by [\d.e-]+ of the largest output \(limit 1\.0e-10\) in float64\nnothing was written; please"
    with pytest.raises(VerificationError, match=told):
        verify(dense, nudged(dense, by))


def test_a_difference_only_on_real_inputs_is_seen() -> None:
    class Rare(nn.Module):
        def __init__(self, far: float) -> None:
            super().__init__()
            self.out, self.far = nn.Linear(3, 2), far

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x) + self.far * (x.sum(1, keepdim=True) > 50)

    one, other = Rare(1.0), Rare(2.0)
    other.load_state_dict(one.state_dict())
    a, b = capture(one, X), capture(other, X)
    assert verify(a, b).float64_relative == 0.0
    proof = verify(a, a.clone(), [(torch.full((2, 3), 100.0),), (torch.ones(1, 3),)])
    assert (proof.n_inputs, proof.on_data) == (4, True)
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        verify(a, b, [(torch.full((2, 3), 100.0),)])


@pytest.mark.parametrize("batches", [(1, 2, 4), (3,), (1, 3), None])
def test_a_difference_at_one_batch_size_is_seen(batches: tuple[int, ...] | None) -> None:
    class AtBatch(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            is_three = torch.ones_like(x[:, 0]).sum() == 3
            return x + self.by * is_three.to(x.dtype)

    a, b = capture(AtBatch(0.0), X), capture(AtBatch(1.0), X)
    if batches is not None and 3 not in batches:
        assert verify(a, b, batches=batches).n_inputs == 3
        return
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        verify(a, b, **({} if batches is None else {"batches": batches}))


def test_nan_agrees_with_nan_at_the_same_place_and_with_nothing_else(dense: Program) -> None:
    broken, elsewhere, whole = dense.clone(), dense.clone(), dense.clone()
    with torch.no_grad():
        broken.parameters["out.bias"][0] = float("nan")
        elsewhere.parameters["out.bias"][1] = float("nan")
        whole.parameters["out.bias"].fill_(float("nan"))
    assert verify(broken, broken.clone()).float64_relative == 0.0
    for pair in ((dense, broken), (broken, dense), (broken, elsewhere)):
        with pytest.raises(
            VerificationError, match="differ: output 0 has a NaN or an infinity where the model has none"
        ):
            verify(*pair)
    with pytest.raises(VerificationError, match="differ: no finite number is in the model's own outputs"):
        verify(whole, whole.clone())


def test_another_shape_is_a_difference() -> None:
    with pytest.raises(
        VerificationError, match=r"differ: output 0 has the shape \(1, 4\) where the model's has \(1, 2\)"
    ):
        verify(capture(nn.Linear(3, 2), X), capture(nn.Linear(3, 4), X))


def test_every_output_of_a_structure_is_compared() -> None:
    class Pair(nn.Module):
        def __init__(self, second: float) -> None:
            super().__init__()
            self.second = second

        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"a": x * 2, "b": (x + 1, x * self.second)}

    assert verify(capture(Pair(1.0), X), capture(Pair(1.0), X)).float64_relative == 0.0
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        verify(capture(Pair(1.0), X), capture(Pair(1.5), X))


class TwoSizes(nn.Module):
    """Two outputs, the second far smaller; `apart` are their relative errors."""

    def __init__(self, small: float, apart: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__()
        self.by = [1.0 + apart[0], small * (1.0 + apart[1])]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * self.by[0], x.sum(1) * self.by[1]


def test_a_large_output_does_not_hide_what_is_wrong_with_a_small_one() -> None:
    right, wrong = capture(TwoSizes(1e-4), X), capture(TwoSizes(1e-4, (0.0, 1e-8)), X)
    assert verify(right, right.clone()).float64_relative == 0.0
    with pytest.raises(VerificationError, match="in float64"):
        verify(right, wrong)  # 1e-12 of the larger output
    assert verify(right, capture(TwoSizes(1e-4, (1e-13, 1e-13)), X)).float64_relative < 1e-12


@pytest.mark.parametrize(
    ("small", "by", "agrees"), [(2e-3, 1.2e-10, False), (5e-4, 1.8e-10, True), (5e-4, 2.2e-10, False)]
)
def test_an_output_counts_as_a_thousandth_of_the_largest(small: float, by: float, agrees: bool) -> None:
    class Two(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = 1 + by

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            one = torch.cos(x * 0)
            return one, one * small * self.by

    right, other = capture(Two(0.0), X), capture(Two(by), X)
    if agrees:
        assert verify(right, other).float64_relative == pytest.approx(by * small / 1e-3, rel=1e-2)
        return
    with pytest.raises(VerificationError, match="in float64"):
        verify(right, other)


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
    proof = verify(one, other)
    assert 0 < proof.float64_relative < 1e-10 and proof.float64_judgment == "limit"
    assert proof.float32_judgment == "own rounding" and proof.float32_relative > 1e-5


def test_outputs_of_nothing_but_zeros_agree_with_nothing_else() -> None:
    zeros = capture(TwoSizes(0.0, (-1.0, 0.0)), X)
    assert verify(zeros, zeros.clone()).float64_relative == 0.0
    with pytest.raises(VerificationError, match="differ by"):
        verify(zeros, capture(TwoSizes(1e-9, (-1.0, 0.0)), X))


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
    drawn = torch.random.get_rng_state()
    verify(dense, dense.clone(), exact={"out.bias": before["out.bias"].double()})
    assert dense.module.training and torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.random.get_rng_state(), drawn)
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

    program = capture(Fixed(), X)
    assert not program.has_dynamic_batch
    assert verify(program, program.clone()).n_inputs == 1


def with_bias(program: Program, dtype: torch.dtype, bias: torch.Tensor) -> Program:
    """The program in that type, with a bias that was rounded to it."""
    other = program.replace(module=program.module.clone(dtype))
    with torch.no_grad():
        other.parameters["out.bias"].copy_(bias)
    return other


def test_tensors_that_were_rounded_count_as_they_were_computed(dense: Program) -> None:
    stored = dense.clone()
    exact = dense.parameters["out.bias"].detach().double() * (1 + 1e-9)
    precise = with_bias(dense, torch.float64, exact)
    with pytest.raises(VerificationError, match="in float64"):
        verify(precise, stored)
    assert verify(precise, stored, exact={"out.bias": exact}).float64_relative < 1e-12


def test_in_float32_stored_tensors_count_as_they_are_stored(dense: Program) -> None:
    """What was computed in float64 and is off where it is stored must not pass by its float64 form."""
    exact = dense.parameters["out.bias"].detach().double()
    stored = nudged(dense, 1e-3)
    with pytest.raises(VerificationError, match="in float32"):
        verify(dense, stored, exact={"out.bias": exact})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_storage_is_not_what_is_compared(dense: Program, dtype: torch.dtype) -> None:
    half = dense.replace(module=dense.module.clone(dtype))
    exact = half.parameters["out.bias"].detach().double() + 1e-3
    nudge = with_bias(half, dtype, exact)
    precise = with_bias(half, torch.float64, exact)
    assert verify(precise, nudge, exact={"out.bias": exact}).float32_relative < 1e-5
    with pytest.raises(VerificationError, match="differ by"):
        verify(precise, nudge)


@pytest.mark.parametrize("name", KINDS)
def test_another_order_of_the_hidden_units_changes_nothing(name: str) -> None:
    program = captured(name)
    proof = verify(program, reordered(name, program))
    assert proof.float64_relative <= proof.float64_limit <= FLOAT64_LIMIT and proof.float64_judgment == "limit"
    assert proof.float32_relative <= proof.float32_limit
    assert bool(proof.float32_noise) == (proof.float32_judgment != "limit")
    if not proof.decisions:
        assert (proof.float32_judgment == "own rounding") == (name == "deep")


CASES = [(name, fault) for name in KINDS for fault in faults_of(name)]


@pytest.mark.parametrize(("name", "fault"), CASES, ids=[f"{name}-{fault.__name__}" for name, fault in CASES])
def test_a_wrong_compact_model_is_refused(name: str, fault: Fault) -> None:
    program = captured(name)
    other = reordered(name, program)
    fault(name, other)
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        verify(program, other)


class Chooses(nn.Module):
    """The best of values that are equal but for rounding, two ways to compute them, and what is fetched from there."""

    def __init__(self, turned: bool, beside: int = 0) -> None:
        super().__init__()
        self.turned, self.beside = turned, beside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = x.abs() * 0.1, x.abs() * 0.2, x.abs() * 0.3
        equal = torch.cat([a + (b + c), (a + b) + c] if self.turned else [(a + b) + c, a + (b + c)], 1)
        best = equal.argmax(1, keepdim=True)
        return (best + self.beside).to(x.dtype)


def test_ties_that_float64_breaks_by_rounding_are_taken_over() -> None:
    spec = [InputSpec("x", (None, 40))]
    one, other = capture(Chooses(False), spec), capture(Chooses(True), spec)
    proof = verify(one, other)
    assert proof.decisions == ("argmax",) and proof.float64_relative <= proof.float64_limit
    with pytest.raises(VerificationError, match="differ by"):
        verify(one, capture(Chooses(True, beside=1), spec))
