"""`compact`: from masks to a physically smaller program, proven equal; it must never retrain or choose what to cut."""

from __future__ import annotations

import time

from torch import Tensor

from compressor.axes import Keep, UnitMap, WalkOptions, find_units
from compressor.compaction.norms import rescaled_norms
from compressor.compaction.result import CompactReport
from compressor.compaction.slicing import layer_changes, slice_program
from compressor.compaction.verify import verify
from compressor.cost import count_macs
from compressor.data import DataSource, Task, open_task
from compressor.errors import CompressError
from compressor.program import Program
from compressor.sparsity import apply_masks, kept_units
from compressor.training import evaluate
from compressor.units import Macs, Params

_REAL_SAMPLES = 64


def compact(
    program: Program,
    *,
    data: DataSource | None = None,
    task: Task | None = None,
    allow_noop: bool = False,
    device: str = "cpu",
) -> tuple[Program, CompactReport]:
    """The program without everything that its masks make removable, and what was done; the input is left untouched.

    What may go follows from how the program was pruned (`record.walk`). Norms that were pruned with `rescale` do not
    compute what they did; then nothing is verified, and the report names them.

    Raises:  CompressError if nothing can be removed (unless `allow_noop`); VerificationError if masked and compact
             differ.
    """
    began = time.perf_counter()
    masked = program.clone()
    apply_masks(masked.module, masked.masks)
    units = find_units(masked, WalkOptions.from_mapping(program.record.walk))
    keep, skipped = _removable(masked, units)
    n_removed = int((~keep).sum())
    if n_removed == 0 and not allow_noop:
        raise CompressError(
            f"nothing to remove: {masked.n_zeroed:,} weights are zeroed, but no whole unit is\n"
            "prune with --pattern channel or filter, or pass --allow-noop"
        )
    smaller = slice_program(masked, units, keep)
    rescaled = rescaled_norms(masked, units, keep)
    agreement = None if rescaled else verify(masked, smaller, _real_inputs(data))
    metrics = None
    if data is not None:
        metrics = evaluate(smaller.module, data, task or open_task(None), device=device)
    report = CompactReport(
        dense_params=Params(program.record.dense_params or program.n_parameters),
        masked_params=Params(masked.n_parameters),
        compact_params=Params(smaller.n_parameters),
        dense_macs=Macs(program.record.dense_macs or count_macs(masked)),
        compact_macs=count_macs(smaller),
        n_units_removed=n_removed,
        still_zeroed=smaller.n_zeroed,
        layers=layer_changes(masked, smaller),
        skipped=tuple(skipped),
        agreement=agreement,
        rescaled=rescaled,
        metrics=metrics,
        seconds=time.perf_counter() - began,
    )
    return smaller, report


def _removable(masked: Program, units: UnitMap) -> tuple[Keep, list[str]]:
    """The units that the masks cut, less one of each width that would otherwise be gone altogether."""
    keep = kept_units(units, masked.masks, masked.parameters)
    skipped: list[str] = []
    for where, members in units.widths:
        if not keep[members].any():
            keep[members[0]] = True
            skipped.append(f"{where}: all {len(members)} units are cut; one stays to keep the graph whole")
    return keep, skipped


def _real_inputs(data: DataSource | None) -> list[tuple[Tensor, ...]]:
    if data is None:
        return []
    first = next(iter(data.batches("val", _REAL_SAMPLES, limit=_REAL_SAMPLES)), None)
    return [] if first is None else [first.inputs]
