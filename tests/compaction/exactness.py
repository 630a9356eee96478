"""What the oracles ask of two programs: the same outputs, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from compressor.program import Program
from tests.compaction.random_networks import INPUT


def leaves(outputs: Any) -> Iterator[Tensor]:
    """The tensors of nested outputs, in order."""
    if isinstance(outputs, Tensor):
        yield outputs
    else:
        for part in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from leaves(part)


@torch.no_grad()
def assert_same_to_the_last_bit(original: Program, compact: Program, message: str) -> None:
    """At batch 1 and 3, on small whole numbers, which float64 sums without rounding."""
    for batch in (1, 3):
        random = torch.Generator().manual_seed(batch)
        x = torch.randint(-2, 3, (batch, INPUT[0], INPUT[1], INPUT[1]), generator=random).double()
        for expected, got in zip(leaves(original.module(x)), leaves(compact.module(x)), strict=True):
            assert expected.abs().max() < 2**53, "the plan outgrows float64: a bug of the generator"
            assert torch.equal(expected, got), f"{message} by {(expected - got).abs().max():g}"
