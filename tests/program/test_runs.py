"""Two right computations of one network agree, whatever rounding decides in it; a really wrong one never does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import Tensor

from compressor.program import Program
from compressor.program.agreement import Agreement, Evidence, judge
from compressor.program.replay import Replay, as_foreign
from compressor.program.runs import Other, Yardstick, seeded
from tests.program.faults import Fault, faults_of
from tests.program.hard_to_compare import KINDS, captured, reordered

ROUNDING = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
"""Of the other side: two units in the last place where the yardstick makes half of one."""

LIMITS = {torch.float32: 1e-5, torch.float64: 1e-9}


def precision_of(name: str, program: Program) -> torch.dtype:
    return torch.float64 if name == "float64" else torch.float32


def answer(
    program: Program, inputs: tuple[Tensor, ...], dtype: torch.dtype, own: object = None
) -> tuple[list[Tensor], Mapping[str, Tensor]]:
    """What another runtime might make of the inputs: computed with coarser roundings, other random numbers."""
    run = Replay(program.module.in_precision(torch.float64).eval(), rounding=ROUNDING[dtype])
    given = [x.double() if x.is_floating_point() else x for x in inputs]
    with seeded(99), torch.no_grad():
        made = run.run(*given)
    outputs = list(made.values()) if isinstance(made, dict) else made if isinstance(made, tuple) else [made]
    return [x.to(dtype) if x.is_floating_point() else x for x in outputs], as_foreign(run.decided)


def compared(name: str, program: Program, other: Program, batch: int = 3) -> Agreement:
    dtype = precision_of(name, program)
    inputs = program.example_inputs(batch, seed=batch)
    outputs, _ = answer(other, inputs, dtype)
    deciding = partial(answer, other, inputs, dtype)
    side = Other(inputs, outputs, deciding=deciding)
    return Yardstick(program).agreement([side], LIMITS[dtype])


def plainly(name: str, program: Program, other: Program) -> Agreement:
    dtype = precision_of(name, program)
    inputs = program.example_inputs(3, seed=3)
    return judge([Evidence(Yardstick(program).own(inputs), answer(other, inputs, dtype)[0])], LIMITS[dtype])


DECIDING = {
    "probabilities near 1e-5", "probabilities near 1e-7", "top-k queries", "two selections", "argmax as output",
    "nearest code", "sort", "thresholds and rounding", "random in evaluation",
}  # fmt: skip
"""Kinds in which something is taken over; the plain limit refuses these and the deep one."""


@pytest.mark.parametrize("name", KINDS)
def test_a_right_computation_agrees(name: str) -> None:
    program = captured(name)
    other = reordered(name, program)
    found = compared(name, program, other)
    assert found.passed, found
    assert bool(found.decisions) == (name in DECIDING)
    assert plainly(name, program, other).passed == (name not in DECIDING and name != "deep")
    if name == "deep" or name.startswith("probabilities"):
        assert found.judgment == ("own rounding" if name == "deep" else "sensitivity") and found.noise


CASES = [(name, fault) for name in KINDS for fault in faults_of(name)]


@pytest.mark.parametrize(("name", "fault"), CASES, ids=[f"{name}-{fault.__name__}" for name, fault in CASES])
def test_a_wrong_computation_never_agrees(name: str, fault: Fault) -> None:
    program = captured(name)
    other = reordered(name, program)
    fault(name, other)
    assert not compared(name, program, other).passed
