"""`compact`: from zeros to a physically smaller program, proven equal; it must never retrain or choose what to cut."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor

from compressor.asking.compact import DEFAULTS, LoweringChoice
from compressor.compaction.dead import Living
from compressor.compaction.lowering import lower
from compressor.compaction.norms import rescaled_norms
from compressor.compaction.removal import remove_dead
from compressor.compaction.removed import CompactReport
from compressor.compaction.rounding import Rounding
from compressor.compaction.slicing import layer_changes
from compressor.compaction.verify import verify
from compressor.cost import USUAL, Stopwatch, count_macs, find_preferences, uncounted_operators
from compressor.data import DataSource, Task, in_batches_of
from compressor.errors import CompressError
from compressor.program import CONTRACTIONS, Program, ProgramModule, find_layers
from compressor.training import evaluate_where_possible
from compressor.units import Macs, Params

_REAL_SAMPLES = 64


def compact(
    program: Program,
    *,
    data: DataSource | None = None,
    task: Task | None = None,
    allow_noop: bool = DEFAULTS.allow_noop,
    masks_only: bool = DEFAULTS.masks_only,
    device: str = "cpu",
    lowering: LoweringChoice = DEFAULTS.lowering,
    stopwatch: Stopwatch | None = None,
    round_to: int = DEFAULTS.round_to,
) -> tuple[Program, CompactReport]:
    """The program without what no output needs, and what was done; the input is left untouched.

    Dead is what only zeros read, whether masks or anything else made them zero, and what is constant where a bias can
    take it over; `masks_only` removes just what the masks cut, for a model whose zeros shall learn again. What may go
    together follows from how the program was pruned (`record.walk`). Norms that were pruned with `rescale` do not
    compute what they did; then nothing is verified, and the report names them. Layers with columns of zeros take the
    form that `lowering` says; `auto` needs a `stopwatch` (`compressor.OperatorClock`) to find the fastest. Dead units
    stay, as zeros, to fill a width up to a multiple of `round_to` (0: to what the runtime likes, as in `prune`).

    Raises:  CompressError if nothing can be removed (unless `allow_noop`); ModelError for masks that do not hold;
             VerificationError if masked and compact differ.
    """
    began = time.perf_counter()
    data = in_batches_of(data, program.fixed_batch)
    masked, rounding = _masked(program), _rounding(round_to, stopwatch)
    without = remove_dead(masked, masks_only=masks_only, rounding=rounding)
    smaller, lowered = lower(without.program, lowering, stopwatch, masks_only=masks_only, filled=without.filled)
    n_removed, zeroed = int((~without.verdict.keep).sum()), _count_zeros(masked)
    idle = n_removed == 0 and not without.branches and all(layer.form == "dense" for layer in lowered)
    if idle and not allow_noop:
        raise CompressError(_nothing(zeroed, without.verdict))
    rescaled = rescaled_norms(without.whole, without.units, without.verdict.keep)
    agreement = None if rescaled else verify(masked, smaller, _real_inputs(data), exact=without.exact)
    smaller.module.train(program.module.training)
    metrics = evaluate_where_possible(smaller.module, data, task, device=device)
    report = CompactReport(
        dense_params=Params(program.record.dense_params or program.n_parameters),
        masked_params=Params(masked.n_parameters),
        compact_params=Params(smaller.n_parameters),
        dense_macs=_dense_macs(program, masked),
        compact_macs=count_macs(smaller),
        n_units_removed=n_removed,
        zeroed=zeroed,
        still_zeroed=_count_zeros(smaller),
        layers=layer_changes(masked, smaller),
        folded=without.folded,
        branches=without.branches,
        kept=without.verdict.kept,
        skipped=without.verdict.skipped,
        agreement=agreement,
        rescaled=rescaled,
        lowered=lowered,
        metrics=metrics,
        uncounted_operators=uncounted_operators(smaller),
        warnings=rounding.trouble,
        seconds=time.perf_counter() - began,
    )
    return smaller, report


def preview(program: Program, *, round_to: int = 1, stopwatch: Stopwatch | None = None) -> Program:
    """What `compact` would leave of whole units, not verified: to be measured, never to be written."""
    return remove_dead(_masked(program), rounding=_rounding(round_to, stopwatch)).program


def foresee(program: Program, *, round_to: int = 1, stopwatch: Stopwatch | None = None) -> Program:
    """The same, whose matrices and kernels have no data: to be counted."""
    return remove_dead(_masked(program), rounding=_rounding(round_to, stopwatch), shapes_only=True).program


def _rounding(round_to: int, stopwatch: Stopwatch | None) -> Rounding:
    return Rounding(round_to, find_preferences(stopwatch) if round_to == 0 else USUAL)


def _masked(program: Program) -> Program:
    """The program in evaluation mode; its tensors are shared, not copied. Raises: ModelError for broken masks."""
    program.check_masks()
    module = ProgramModule(program.module.tensors(), copy.deepcopy(program.module.graph))
    return program.replace(module=module.eval(), traced=program.traced)


def _dense_macs(program: Program, masked: Program) -> Macs:
    """Of the network before anything was removed: what was remembered counts only once its tensors are smaller."""
    remembered = program.record.dense_macs if program.record.dense_shapes else None
    return Macs(remembered or count_macs(masked))


def _count_zeros(program: Program) -> int:
    """Elements that masks cut, and zeros in the weights of convolutions and linear layers."""
    tensors = program.module.tensors()
    weights = {layer.weight for layer in find_layers(program) if layer.kind in CONTRACTIONS}
    n = 0
    for name in {*weights, *program.masks}:
        zero = tensors[name] == 0 if name in weights else torch.zeros_like(tensors[name], dtype=torch.bool)
        mask = program.masks.get(name)
        n += int((zero if mask is None else zero | ~mask.to(zero.device)).sum())
    return n


def _nothing(zeroed: int, verdict: Living) -> str:
    why = f"{verdict.kept[0].layer}: {verdict.kept[0].reason}" if verdict.kept else ""
    stays = f"\n{sum(kept.n_filters for kept in verdict.kept):,} filters hold only zeros but stay: {why}" if why else ""
    return (
        f"nothing to remove: {zeroed:,} weights are zeroed, but no whole unit is{stays}\n"
        "prune with --pattern channel or filter, or pass --allow-noop"
    )


def _real_inputs(data: DataSource | None) -> list[tuple[Tensor, ...]]:
    if data is None:
        return []
    first = next(iter(data.batches("val", _REAL_SAMPLES, limit=_REAL_SAMPLES)), None)
    return [] if first is None else [first.inputs]
