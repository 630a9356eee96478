"""Whether a program computes what its module does, found by calling both; it must never change either."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from compressor.program.calls import ask, difference
from compressor.program.original import At, Original
from compressor.program.precision import default_type
from compressor.program.program import Program


def find_difference(program: Program, original: Original, at: Iterable[At]) -> str | None:
    """What the program does otherwise than the module, in words; None where they agree at all of these sizes.

    Where they differ in the network's own type they may still agree in float64: then it was rounding, which a network
    of many layers, or one that takes the largest of near-equal values, can make as large as it likes. A size at which
    the module itself raises says nothing.
    """
    for size in at:
        expected = original.answer(size)
        if expected.error is not None:
            continue
        got = ask(program.module.forward, original.examples(size), equal_draws=original.draws)
        if got.error is not None:
            return f"at {size} it raises {got.error}"
        found = difference(expected, got)
        if found is not None and not _agree_exactly(program, original, size):
            return f"at {size} {found}"
    return None


def _agree_exactly(program: Program, original: Original, size: At) -> bool:
    """Whether both can be computed in float64, and return the same there."""
    inputs = [x.double() if x.is_floating_point() else x for x in original.examples(size)]
    expected = original.exact_answer(size)
    with default_type(torch.float64):
        got = ask(program.module.in_precision(torch.float64).forward, inputs, equal_draws=original.draws)
    return expected.error is None and got.error is None and difference(expected, got) is None
