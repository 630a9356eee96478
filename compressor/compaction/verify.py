"""The proof that a compact model computes what the masked one does; it must never repair anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compressor.compaction.result import Agreement
from compressor.errors import VerificationError
from compressor.program import Program, default_type

FLOAT64_LIMIT = 1e-10
"""Relative to the largest value of an output: float64 leaves 1e-16 per operation, so 1e-10 forgives depth and nothing
else."""

FLOAT32_LIMIT = 1e-5

_SMALLEST_SHARE = {torch.float64: 1e-3, torch.float32: 0.1}
"""Share of the largest output that a smaller one counts as at least. It may be what is left of values as large as that,
and hold their rounding: with the limits this forgives 450 roundings of the largest value in float64, 8 in float32."""


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
    """Largest |a − b| over the largest |a| of the same output; NaN when an output is not finite."""
    expected, got = _outputs(a, inputs, dtype, {}), _outputs(b, inputs, dtype, exact)
    scales = _scales(expected, _SMALLEST_SHARE[dtype])
    worst = 0.0
    for left, right in zip(expected, got, strict=True):
        for x, y, scale in zip(left, right, scales, strict=True):
            if x.shape != y.shape:
                return float("nan")
            difference = float((x.double() - y.double()).abs().max()) if x.numel() else 0.0
            worst = _larger(worst, difference / scale if scale else difference)
    return worst


def _scales(outputs: Sequence[Sequence[Tensor]], smallest_share: float) -> list[float]:
    """The largest value of each output, or the smallest share of the largest of all outputs.

    Over all inputs: a single number can be next to 0 for one sample by chance.
    """
    largest = [
        max((float(x.double().abs().max()) for x in of_inputs if x.numel()), default=0.0)
        for of_inputs in zip(*outputs, strict=True)
    ]
    return [max(own, smallest_share * max(largest)) for own in largest]


@torch.no_grad()
def _outputs(
    program: Program, inputs: Sequence[tuple[Tensor, ...]], dtype: torch.dtype, exact: Mapping[str, Tensor]
) -> list[list[Tensor]]:
    """The outputs for each input, computed in `dtype`, with `exact` in place of the tensors of those names."""
    stored = program.module.tensors()
    fitting = {name: value for name, value in exact.items() if name in stored and stored[name].shape == value.shape}
    module = program.module.in_precision(dtype, fitting).eval()
    found = []
    with default_type(dtype):
        for given in inputs:
            outputs = module(*(x.to(dtype) if x.is_floating_point() else x for x in given))
            found.append([leaf.detach() for leaf in _leaves(outputs)])
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
