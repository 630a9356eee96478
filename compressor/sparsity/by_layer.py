"""What is said about single layers, by the user or by a sensitivity scan, as counts and ranks; it must never score.

Three ways to say it: a share that a layer keeps, a threshold in standard deviations of its weights (Han et al. 2015),
and a curve of what the metric loses as the layer shrinks. Shares and thresholds decide a layer at once and for good;
curves rank layers against each other until the budget is met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from compressor.asking.scan import Sensitivity
from compressor.axes import UnitMap
from compressor.errors import PatternError, UsageError
from compressor.program import CONTRACTIONS, Layer
from compressor.sparsity.allocation import Rules
from compressor.sparsity.choice import Choice, matching_layers
from compressor.sparsity.counts import CountAt
from compressor.sparsity.scores import Scores

_GRID = np.linspace(0.0, 1.0, 1001)


@dataclass(frozen=True)
class Losses:
    """What a layer costs in the metric when a share of it goes, never falling. Shapes: (1001,) over shares 0..1."""

    at_grid: NDArray[np.float64]

    @staticmethod
    def of(scan: Sensitivity, layers: Sequence[str]) -> Losses:
        """The worst of the layers that share one width."""
        curves = [[scan.loss_at(layer, float(removed)) for removed in _GRID] for layer in layers]
        worst = np.nan_to_num(np.max(curves, axis=0), posinf=np.finfo(np.float64).max)
        return Losses(np.maximum.accumulate(np.maximum(worst, 0.0)))

    def at(self, removed: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(removed, _GRID, self.at_grid)

    def removable(self, tolerance: float) -> float:
        """The largest share that may go at that loss."""
        return float(_GRID[max(int(np.searchsorted(self.at_grid, tolerance, side="right")) - 1, 0)])


@dataclass(frozen=True)
class Demands:
    """Per layer (or per width, numbered, for units): kept share, threshold, curve; what is not there is left open."""

    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    thresholds: Mapping[str, float] = field(default_factory=dict[str, float])
    losses: Mapping[str, Losses] = field(default_factory=dict[str, Losses])

    def __bool__(self) -> bool:
        return bool(self.shares or self.thresholds or self.losses)

    def n_kept(self, name: str, n: int, n_over: int) -> int | None:
        """How many of `n` stay if that is decided; `n_over` of them are above the threshold."""
        if name in self.shares:
            return max(1, round(self.shares[name] * n))
        return max(1, n_over) if name in self.thresholds else None


def find_demands(choice: Choice, layers: Sequence[Layer], prunable: Mapping[str, Sequence[str]]) -> Demands:
    """What `choice` says, for each entry of `prunable` (a name, and the layers that it stands for).

    Raises:  UsageError if a glob matches no layer, a scan lacks one, or two layers of one width ask for different
             things; PatternError if a layer that was named cannot be cut.
    """
    candidates = [layer for layer in layers if layer.kind in CONTRACTIONS]
    shares = _spread(choice, "--layer", choice.asked.layers, candidates, prunable)
    thresholds = _spread(choice, "--quality", choice.asked.quality, candidates, prunable)
    scan = choice.asked.sensitivity
    if scan is None:
        return Demands(shares, thresholds)
    open_names = {name: members for name, members in prunable.items() if name not in shares}
    for members in open_names.values():
        missing = [layer for layer in members if layer not in scan.curves]
        if len(missing) == len(members):
            raise UsageError(
                f"--sensitivity: {missing[0]} is not in the scan; scan it too, or leave it whole with"
                f" --keep {missing[0]}"
            )
    losses = {
        name: Losses.of(scan, [layer for layer in members if layer in scan.curves])
        for name, members in open_names.items()
    }
    if choice.asked.max_loss is None:
        return Demands(shares, thresholds, losses)
    tolerated = {name: 1 - curve.removable(choice.asked.max_loss) for name, curve in losses.items()}
    return Demands({**tolerated, **shares}, thresholds)


def _spread(
    choice: Choice,
    option: str,
    pairs: Sequence[tuple[str, float]],
    layers: Sequence[Layer],
    prunable: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """GLOB=VALUE pairs on the names of `prunable`; of two that match a layer the later one counts."""
    by_layer = {name: value for glob, value in pairs for name in matching_layers(layers, [glob], option)}
    found: dict[str, float] = {}
    for name, members in prunable.items():
        said = {by_layer[layer] for layer in members if layer in by_layer}
        if len(said) > 1:
            raise UsageError(
                f"{option}: {', '.join(members)} share one width and keep the same filters; give all the same value"
            )
        if said:
            found[name] = said.pop()
    reached = {layer for members in prunable.values() for layer in members}
    for glob, _ in pairs:
        if glob != "*" and not matching_layers(layers, [glob], option) & reached:
            raise PatternError(
                f"{option} {glob}: nothing there can be cut by --pattern {choice.asked.pattern} in this scope; "
                "`compress analyze` says what is pinned and why"
            )
    return found


def producers(units: UnitMap, layers: Sequence[Layer], rules: Rules) -> dict[str, list[str]]:
    """The layers whose filters a width's free units are, by the width's number as text."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        of_index = units.axes.get((layer.weight, layer.out_dim))
        if layer.kind not in CONTRACTIONS or of_index is None:
            continue
        mine = of_index[of_index >= 0]
        for number in np.unique(rules.group[mine[rules.free[mine]]]):
            found.setdefault(str(number), []).append(layer.name)
    return found


def demand_units(ranked: Scores, scores: Scores, rules: Rules, demands: Demands) -> tuple[Scores, Rules]:
    """Ranks and rules with the demands in them: what a decided width loses is gone, what it keeps is no longer free.

    A filter is over the threshold when the root mean square of its weights is, in units of the layer's.

    Shapes:  ranked, scores (n_units,)
    """
    ranked, free = ranked.copy(), rules.free.copy()
    gone = ~rules.alive
    for number in range(rules.n_groups):
        name = str(number)
        members = np.flatnonzero(rules.group == number)
        candidates = members[free[members] & ~gone[members]]
        order = candidates[np.argsort(scores[candidates], kind="stable")]
        n_over = len(members) - int((scores[order] <= demands.thresholds.get(name, 0.0) ** 2).sum())
        n_kept = demands.n_kept(name, len(members), n_over - int(gone[members].sum()))
        if n_kept is not None:
            step = int(rules.steps[number])
            wanted = min(-(-n_kept // step) * step, len(members))
            n_cut = max(int((~gone[members]).sum()) - wanted, 0)
            gone[order[:n_cut]] = True
            free[members] = False
        elif name in demands.losses and len(order):
            removed = (int(gone[members].sum()) + np.arange(1, len(order) + 1)) / len(members)
            ranked[order] = demands.losses[name].at(removed)
    return ranked, replace(rules, free=free, gone=gone if gone.any() else rules.gone)


def demanded_counts(
    open_counts: CountAt, names: Sequence[str], sizes: Sequence[int], n_over: Sequence[int], demands: Demands
) -> CountAt:
    """Counts with the demands in them: decided ones are the same at every level, curves replace the open ones.

    Shapes:  names, sizes and n_over: one entry for each layer
    """
    decided = [demands.n_kept(name, size, over) for name, size, over in zip(names, sizes, n_over, strict=True)]
    top = max((float(curve.at_grid[-1]) for curve in demands.losses.values()), default=0.0)

    def at(level: float) -> list[int]:
        counts = open_counts(level)
        for i, (name, size, fixed) in enumerate(zip(names, sizes, decided, strict=True)):
            if fixed is not None:
                counts[i] = min(fixed, open_counts(1.0)[i])
            elif name in demands.losses:
                # A level from 0 to 1 stands for a tolerance from everything to nothing.
                removable = demands.losses[name].removable((1 - level) * top) if level < 1 else 0.0
                counts[i] = min(max(size - int(removable * size), 1), open_counts(1.0)[i])
        return counts

    return at
