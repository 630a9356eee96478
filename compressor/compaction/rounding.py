"""Widths that the runtime likes: some of what is dead stays, as zeros, where that is faster.

It must never keep more than a layer had, nor let what stays take part in a result: what is kept is a filler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch.fx import Node

from compressor.axes import Ids, Keep, UnitMap
from compressor.compaction.dead import Verdict
from compressor.cost import Stopwatch
from compressor.errors import UsageError
from compressor.program import CONTRACTIONS, Layer, Program, find_layers
from compressor.sparsity import layer_trial

_MULTIPLES = (4, 16)
"""What onnxruntime's CPU kernels are made for: input channels in fours (63 take 1.8 times as long as 64), groups of a
grouped convolution in sixteens (1.7 times)."""

_WORTH_IT = 0.97
"""Filling up must save this much of the time of the layers it touches: zeros cost memory."""


@dataclass(frozen=True)
class Rounding:
    """Up to which multiple widths are filled: 1 leaves them, 0 measures which multiple pays at each width."""

    multiple: int = 1
    stopwatch: Stopwatch | None = None

    def filled(self, program: Program, units: UnitMap, verdict: Verdict) -> Verdict:
        """The verdict with more fillers among what is dead.

        Raises:  UsageError if a multiple is to be measured and there is no stopwatch.
        """
        if self.multiple < 0:
            raise UsageError(f"--round-to {self.multiple}: a whole number from 1, or auto")
        if self.multiple == 1:
            return verdict
        if self.multiple == 0 and self.stopwatch is None:
            raise UsageError("no stopwatch: which widths are fast is measured; give a compressor.OperatorClock()")
        keep = verdict.keep.copy()
        times = _Times(program, units, self.stopwatch) if self.stopwatch is not None else None
        for group in units.groups:
            members = np.array(group)
            if keep[members].any() and not keep[members].all():
                multiple = self.multiple or (times.best_multiple(keep, members) if times is not None else 1)
                keep = _with_fillers(keep, members, multiple)
        return replace(verdict, keep=keep, fillers=verdict.fillers | (keep & ~verdict.keep))


def _with_fillers(keep: Keep, members: Ids, multiple: int) -> Keep:
    """Dead units of one width added until it is a multiple, or whole. Shapes: keep (n_units,) -> (n_units,)"""
    n = int(keep[members].sum())
    wanted = min(-(-n // multiple) * multiple, len(members))
    filled = keep.copy()
    filled[members[~keep[members]][: wanted - n]] = True
    return filled


class _Times:
    """The time of the layers that a width belongs to."""

    def __init__(self, program: Program, units: UnitMap, stopwatch: Stopwatch) -> None:
        self._program, self._units, self._stopwatch = program, units, stopwatch
        self._nodes: Mapping[str, Node] = {node.name: node for node in program.module.graph.nodes}
        found = [layer for layer in find_layers(program) if layer.kind in CONTRACTIONS and layer.in_dim is not None]
        self._layers = [layer for layer in found if layer.weight in program.parameters]

    def best_multiple(self, keep: Keep, members: Ids) -> int:
        """The multiple whose layers take least time, 1 where filling up does not pay."""
        touched = [layer for layer in self._layers if self._reads_or_makes(layer, members)]
        if not touched:
            return 1
        choices = (1, *(m for m in _MULTIPLES if not np.array_equal(_with_fillers(keep, members, m), keep)))
        totals = self._seconds(touched, [_with_fillers(keep, members, multiple) for multiple in choices])
        best = int(np.argmin(totals))
        return choices[best] if totals[best] < _WORTH_IT * totals[0] else 1

    def _seconds(self, layers: Sequence[Layer], keeps: Sequence[Keep]) -> list[float]:
        totals = [0.0] * len(keeps)
        for layer in layers:
            trials = [self._trial(layer, keep) for keep in keeps]
            for i, seconds in enumerate(self._stopwatch.seconds(trials)):
                totals[i] += seconds
        return totals

    def _trial(self, layer: Layer, keep: Keep) -> Program:
        assert layer.in_dim is not None
        counts = [int(self._units.kept_along(keep, layer.weight, d).sum()) for d in (layer.out_dim, layer.in_dim)]
        return layer_trial(self._program, layer, self._nodes[layer.node], max(counts[0], 1), max(counts[1], 1))

    def _reads_or_makes(self, layer: Layer, members: Ids) -> bool:
        axes = (self._units.axes.get((layer.weight, dim)) for dim in (layer.out_dim, layer.in_dim) if dim is not None)
        return any(axis is not None and bool(np.isin(members[:1], axis).any()) for axis in axes)
