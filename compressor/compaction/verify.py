"""The proof that a compact model computes what the masked one does; it must never repair anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from compressor.compaction.removed import Proof
from compressor.errors import VerificationError
from compressor.program import Program
from compressor.program.agreement import Agreement, Tally
from compressor.program.replay import as_foreign
from compressor.program.runs import Decisions, Other, Yardstick, examples_at_other_lengths, with_short_examples

FLOAT64_LIMIT = 1e-10
"""Relative to the largest value of an output: float64 leaves 1e-16 per operation, so 1e-10 forgives depth and nothing
else."""

FLOAT32_LIMIT = 1e-5

_LEAST_SHARE = 1e-3
"""Share of the largest output that a smaller one counts as at least. It may be what is left of values as large as that,
and hold their rounding: in float64 this forgives 450 roundings of the largest value; float32's noise is measured."""


def verify(
    masked: Program,
    compact: Program,
    real_inputs: Sequence[tuple[Tensor, ...]] = (),
    *,
    batches: Iterable[int] = (1, 3),
    exact: Mapping[str, Tensor] | None = None,
) -> Proof:
    """How far the two programs are apart, on random inputs of each batch size and on the real ones, in both precisions.

    `exact` holds tensors of `compact` that were computed in float64 and rounded to be stored. They count where that was
    coarser than the comparison: it is about what was removed, not about storage.

    Raises:  VerificationError if either limit is passed; the difference is told.
    """
    sizes = tuple(batches) if masked.has_dynamic_batch else (masked.sampled_batch,)
    short = with_short_examples(masked)
    inputs = [short.example_inputs(batch, seed=batch) for batch in sizes] + list(real_inputs)
    inputs += examples_at_other_lengths(short, sizes)
    in64 = _agreement(masked, compact, inputs, torch.float64, exact or {})
    coarse = {name for name, tensor in compact.module.tensors().items() if tensor.element_size() < 4}
    kept = {name: value for name, value in (exact or {}).items() if name in coarse}
    in32 = _agreement(masked, compact, inputs, torch.float32, kept)
    for precision, found in (("float64", in64), ("float32", in32)):
        if not found.passed:
            raise VerificationError(
                f"masked and compact model {found.apart} in {precision}\n"
                "nothing was written; please report the model, this should not happen"
            )
    return Proof(
        float64_relative=in64.max_rel,
        float32_relative=in32.max_rel,
        float64_limit=in64.limit,
        float32_limit=in32.limit,
        n_inputs=len(inputs),
        on_data=bool(real_inputs),
        float64_judgment=in64.judgment,
        float32_judgment=in32.judgment,
        float32_noise=in32.noise,
        decisions=tuple(dict.fromkeys((*in64.decisions, *in32.decisions))),
    )


def _agreement(
    masked: Program,
    compact: Program,
    inputs: Sequence[tuple[Tensor, ...]],
    dtype: torch.dtype,
    exact: Mapping[str, Tensor],
) -> Agreement:
    """The agreement in `dtype`, with `exact` in place of the compact model's tensors of those names."""
    smaller, whole = Yardstick(compact, dtype, exact), Yardstick(masked, dtype)
    limit = FLOAT64_LIMIT if dtype == torch.float64 else FLOAT32_LIMIT
    tally = Tally()
    for given in inputs:
        tally.add(whole.own(given), smaller.own(given))
    if (found := tally.agreement(limit, least_share=_LEAST_SHARE)) is not None:
        return found
    others = [Other(given, smaller.own(given), deciding=partial(_deciding, smaller, given)) for given in inputs]
    return whole.agreement(others, limit, least_share=_LEAST_SHARE)


def _deciding(smaller: Yardstick, inputs: Sequence[Tensor], own: Decisions) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The compact model's outputs, and what it decides at operators that the masked one has too."""
    outputs, decided = smaller.run_and_decisions(inputs)
    return outputs, as_foreign({name: part for name, part in decided.items() if name in own})
