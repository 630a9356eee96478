"""Removal of what is dead, from the constants found to the biases they went into; it must never verify or lower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from compressor.asking import WalkOptions
from compressor.axes import UnitMap, find_units, without_blocks
from compressor.compaction.branches import without_constant_branches
from compressor.compaction.dead import Living, living_units, masked_units
from compressor.compaction.find_constants import find_constants
from compressor.compaction.folding import fold_removed
from compressor.compaction.removed import Branch, Folded
from compressor.compaction.rounding import Rounding
from compressor.compaction.slicing import cut_tensor, slice_program
from compressor.program import Program, close_choices
from compressor.sparsity import apply_masks, cut_blocks, mask_units


@dataclass(frozen=True)
class Removal:
    """`whole` without its dead units is `program`; `exact` are its tensors that were rounded to be stored.

    `filled` are masks of what stays in `program` as zeros, because that makes widths that are fast.
    """

    whole: Program
    program: Program
    units: UnitMap
    verdict: Living
    folded: tuple[Folded, ...] = ()
    branches: tuple[Branch, ...] = ()
    exact: Mapping[str, Tensor] = field(default_factory=dict)
    filled: Mapping[str, Tensor] = field(default_factory=dict)


def remove_dead(
    masked: Program, *, masks_only: bool = False, rounding: Rounding | None = None, shapes_only: bool = False
) -> Removal:
    """The program without what nothing needs; what its masks cut is expected to be 0, and its mode to be evaluation.

    With `masks_only` what the masks cut altogether goes, and nothing else. `rounding` says what of it stays to fill up
    a width; `shapes_only` is for who counts only.
    """
    walk, rounding = WalkOptions.from_mapping(masked.record.walk), rounding or Rounding()
    blocks = cut_blocks(masked)
    masked = without_blocks(masked, blocks) if blocks else masked
    gone = tuple(Branch(block.name, "nothing: its masks cut it") for block in blocks)
    if masks_only:
        units = find_units(masked, walk)
        verdict = rounding.filled(masked, units, masked_units(masked, units))
        filled = _filler_masks(masked, units, verdict) if rounding.fills else {}
        small = _closed(_sliced(masked, units, verdict, shapes_only), shapes_only)
        return Removal(masked, small, units, verdict, branches=gone, filled=filled)
    constants = find_constants(masked)
    cleared = without_constant_branches(masked, constants)
    whole = cleared.program
    if cleared.branches:
        constants = find_constants(whole)
    units = find_units(whole, walk)
    verdict = rounding.filled(whole, units, living_units(whole, units, constants))
    verdict = replace(verdict, skipped=(*cleared.stays, *verdict.skipped))
    fillers = _filler_masks(whole, units, verdict)
    exact = {name: cut_tensor(name, value, units, verdict.keep) for name, value in cleared.exact.items()}
    exact = {name: value * fillers[name] if name in fillers else value for name, value in exact.items()}
    small, folded, exact = fold_removed(_sliced(whole, units, verdict, shapes_only), units, verdict, exact)
    filled = fillers if rounding.fills else {}
    small = _closed(small, shapes_only)
    return Removal(whole, small, units, verdict, folded, (*gone, *cleared.branches), exact, filled)


def _closed(small: Program, shapes_only: bool) -> Program:
    """Without what leaves cut experts out, where none is left; it costs nothing that is counted, and shapes do not
    tell which weights are 0."""
    return small if shapes_only else close_choices(small)


def _sliced(whole: Program, units: UnitMap, verdict: Living, shapes_only: bool) -> Program:
    """The program without the units that go; those that only fill a dimension are 0 in it."""
    sliced = slice_program(whole, units, verdict.keep, shapes_only=shapes_only)
    apply_masks(sliced.module, _filler_masks(whole, units, verdict))
    return sliced


def _filler_masks(whole: Program, units: UnitMap, verdict: Living) -> dict[str, Tensor]:
    """Masks of the sliced parameters that cut what only fills a dimension."""
    if not verdict.fillers.any():
        return {}
    masks = mask_units(whole.module, units, ~verdict.fillers)
    return {name: cut_tensor(name, mask, units, verdict.keep) for name, mask in masks.items()}
