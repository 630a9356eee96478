"""Half precision: what is kept, what training sees, and what comes back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.program import (
    InputSpec,
    Program,
    capture,
    computing_in,
    half_type,
    has_halves,
    narrowed,
    taking_float32,
    widened,
)

HALVES = (torch.float16, torch.bfloat16)


class Normed(nn.Module):
    """Names types in its code, as networks in half precision do: the norm computes in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.one(x).to(torch.float32)
        normed = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(self.two.weight.dtype)
        return self.two(normed)


def program_in(dtype: torch.dtype) -> Program:
    torch.manual_seed(0)
    return capture(Normed().to(dtype), [InputSpec("x", (None, 6))])


@pytest.mark.parametrize("dtype", HALVES)
def test_what_training_sees_is_float32_and_what_comes_back_is_as_it_was(dtype: torch.dtype) -> None:
    program = program_in(dtype)
    wide = widened(program)
    assert has_halves(program) and not has_halves(wide)
    assert wide.inputs[0].dtype == "float32"
    assert wide.module(torch.randn(2, 6)).dtype is torch.float32
    back = narrowed(wide, program)
    assert {p.dtype for p in back.module.parameters()} == {dtype} and back.inputs == program.inputs
    (x,) = program.example_inputs(3)
    assert torch.equal(back.module(x), program.module(x))


@pytest.mark.parametrize("dtype", HALVES)
def test_what_was_trained_is_rounded_once(dtype: torch.dtype) -> None:
    program = program_in(dtype)
    wide = widened(program)
    with torch.no_grad():
        wide.parameters["one.weight"].add_(1e-3)
    expected = wide.parameters["one.weight"].detach().to(dtype)
    assert torch.equal(narrowed(wide, program).parameters["one.weight"], expected)
    assert not torch.equal(program.parameters["one.weight"], expected)


def test_float32_is_left_alone() -> None:
    program = program_in(torch.float32)
    assert widened(program) is program and taking_float32(program) is program


@pytest.mark.parametrize("dtype", HALVES)
def test_inputs_are_taken_as_data_sets_have_them(dtype: torch.dtype) -> None:
    program = program_in(dtype)
    taking = taking_float32(program)
    x = torch.randn(3, 6)
    assert taking.inputs[0].dtype == "float32"
    assert torch.equal(taking.module(x), program.module(x.to(dtype)))
    with pytest.raises(Exception, match=r"dtype|type"):
        program.module(x)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
        ((torch.float16, torch.int64), torch.float16),
        ((torch.bfloat16, torch.float16), None),
        ((torch.bfloat16, torch.float32), None),
        ((torch.float32,), None),
        ((torch.int64,), None),
    ],
)
def test_one_half_precision_is_all_or_none(dtypes: tuple[torch.dtype, ...], expected: torch.dtype | None) -> None:
    assert half_type(torch.zeros(2).to(dtype) for dtype in dtypes) == expected


@pytest.mark.parametrize("dtype", HALVES)
def test_networks_compute_in_a_wider_type_without_a_copy(dtype: torch.dtype) -> None:
    module = Normed().to(dtype).eval()
    x = torch.randn(3, 6, dtype=torch.float64)
    with torch.no_grad(), computing_in(torch.float64):
        found = module(x)
    with torch.no_grad():
        expected = module.double()(x)
    assert found.dtype is torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
