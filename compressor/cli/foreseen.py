"""What `compact` will leave of a pruned program, counted before it is written; it must never change the program."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from compressor.errors import CompressError, first_line
from compressor.units import Macs, Params, format_count, format_macs

if TYPE_CHECKING:
    from compressor.program import Program
    from compressor.pruning import PruneReport


def as_compacted(program: Program, report: PruneReport) -> PruneReport:
    """The report with the counts of what compaction leaves of the program, and why these are not those of the masks.

    `prune` counts what it cut; what was dead before goes too. Where columns are cut the report stays as it is: whether
    a layer is computed without them is decided by measuring.
    """
    from compressor.compaction import foresee
    from compressor.cost import count_macs

    pattern = report.pattern
    if pattern.weights == "shape":
        return report
    try:
        left = foresee(program)
    except CompressError as error:
        told = f"compact will not take this network: {first_line(error)}"
        return replace(report, warnings=(*report.warnings, told))
    params, macs = Params(left.n_parameters), count_macs(left)
    if (params, macs) == (report.compact_params, report.compact_macs):
        return report
    counted = replace(report, compact_params=params, compact_macs=macs)
    return _told(counted, params, macs) if pattern.is_physical else counted


def _told(report: PruneReport, params: Params, macs: Macs) -> PruneReport:
    """With these counts as the ones that are kept, and `got` by them where it was of the whole network."""
    dense, before, after = (
        (report.dense_macs, report.kept_macs, macs)
        if report.of == "macs"
        else (report.dense_params, report.kept_params, params)
    )
    whole = report.of != "latency" and math.isclose(report.got, dense / max(before, 1), rel_tol=1e-6)
    uncut = f"{format_count(report.kept_params)} parameters and {format_macs(report.kept_macs)} MACs"
    left = f"{format_count(params)} and {format_macs(macs)}"
    told = f"the masks leave {uncut}, compact {left}: the network had dead or constant units before"
    got = dense / max(after, 1) if whole else report.got
    return replace(report, kept_params=params, kept_macs=macs, got=got, warnings=(*report.warnings, told))
