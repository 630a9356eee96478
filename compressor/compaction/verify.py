"""The proof that a compact model computes what the masked one does; it must never repair anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compressor.compaction.result import Agreement
from compressor.errors import VerificationError
from compressor.program import Program

FLOAT64_LIMIT = 1e-10
"""Relative to the largest output: float64 leaves 1e-16 per operation, so 1e-10 forgives depth and nothing else."""

FLOAT32_LIMIT = 1e-5


def verify(
    masked: Program,
    compact: Program,
    real_inputs: Sequence[tuple[Tensor, ...]] = (),
    *,
    batches: Iterable[int] = (1, 3),
    exact: Mapping[str, Tensor] | None = None,
) -> Agreement:
    """How far the two programs are apart, on random inputs of each batch size and on the real ones, in both precisions.

    `exact` holds tensors of `compact` that were computed in float64 and rounded to be stored. They count where that was
    coarser than the comparison: it is about what was removed, not about storage.

    Raises:  VerificationError if either limit is passed; the difference and the input are named.
    """
    sizes = [b for b in batches if masked.has_dynamic_batch or b == 1]
    inputs = [masked.example_inputs(batch, seed=batch) for batch in sizes] + list(real_inputs)
    worst64 = _largest_difference(masked, compact, inputs, torch.float64, exact or {})
    coarse = {name for name, tensor in compact.module.tensors().items() if tensor.element_size() < 4}
    kept = {name: value for name, value in (exact or {}).items() if name in coarse}
    worst32 = _largest_difference(masked, compact, inputs, torch.float32, kept)
    for precision, worst, limit in (("float64", worst64, FLOAT64_LIMIT), ("float32", worst32, FLOAT32_LIMIT)):
        if not worst <= limit:
            raise VerificationError(
                f"masked and compact model differ by {worst:.2e} relative in {precision} (allowed: {limit:.0e})\n"
                "nothing was written; please report the model, this should not happen"
            )
    return Agreement(worst64, worst32, FLOAT64_LIMIT, FLOAT32_LIMIT, len(inputs), bool(real_inputs))


def _largest_difference(
    a: Program, b: Program, inputs: Sequence[tuple[Tensor, ...]], dtype: torch.dtype, exact: Mapping[str, Tensor]
) -> float:
    """Largest |a − b| over the largest |a|; NaN when an output is not finite.

    One after the other: two copies in float64 at once are four times the memory of the model.
    """
    worst = 0.0
    for left, right in zip(_outputs(a, inputs, dtype, {}), _outputs(b, inputs, dtype, exact), strict=True):
        scale = max((float(x.abs().max()) for x in left if x.numel()), default=0.0)
        for x, y in zip(left, right, strict=True):
            if x.shape != y.shape:
                return float("nan")
            difference = float((x.double() - y.double()).abs().max()) if x.numel() else 0.0
            worst = _larger(worst, difference / scale if scale else difference)
    return worst


@torch.no_grad()
def _outputs(
    program: Program, inputs: Sequence[tuple[Tensor, ...]], dtype: torch.dtype, exact: Mapping[str, Tensor]
) -> list[list[Tensor]]:
    """The outputs for each input, computed in `dtype`, with `exact` in place of the tensors of those names."""
    module = program.module.clone(dtype).eval()
    stored = module.tensors()
    for name, value in exact.items():
        if name in stored and stored[name].shape == value.shape:
            stored[name].copy_(value)
    found = []
    for given in inputs:
        outputs = module(*(x.to(dtype) if x.is_floating_point() else x for x in given))
        found.append([leaf.detach() for leaf in _leaves(outputs)])
    for tensor in stored.values():  # graph and module hold each other: the memory would wait for the collector
        tensor.data = torch.empty(0, dtype=tensor.dtype)
    return found


def _larger(a: float, b: float) -> float:
    """`max` that keeps NaN, so that a non-finite output can never pass as agreement."""
    return b if not b <= a else a


def _leaves(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, dict):
        for part in outputs.values():
            yield from _leaves(part)
    elif isinstance(outputs, (tuple, list)):
        for part in outputs:
            yield from _leaves(part)
