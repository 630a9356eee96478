"""Which units are dead: nobody needs them, whatever the input; it must never change the program.

Backwards from the outputs: a unit lives while something that lives reads it through a weight that is not 0 and cannot
take over as a constant what it reads. What is left is dead, rings of units that only read each other among it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.axes import Ids, Keep, UnitMap
from compressor.compaction.constants import Walked
from compressor.compaction.readers import ALWAYS, LIVE, Need, Reading, Survey, place
from compressor.compaction.removed import Kept
from compressor.program import Program
from compressor.sparsity import kept_units

_OUTPUT = "output of the network"


@dataclass(frozen=True)
class Living:
    """Which units stay, why zeroed filters are among them, and how what goes was read.

    `fillers` are dead too but stay, one for each dimension that would be empty otherwise; all their weights become 0.

    Shapes:  keep, fillers (n_units,)
    """

    keep: Keep
    fillers: Keep
    kept: tuple[Kept, ...]
    skipped: tuple[str, ...]
    readings: tuple[Reading, ...]


def masked_units(program: Program, units: UnitMap) -> Living:
    """The units that the masks leave."""
    keep = kept_units(units, program.masks, program.parameters)
    fillers, skipped = _fill(units, keep)
    return Living(keep | fillers, fillers, (), skipped, ())


def living_units(program: Program, units: UnitMap, constants: Mapping[str, Walked]) -> Living:
    """The units that something needs; those that the masks cut altogether are never needed."""
    survey = Survey(program, units, constants)
    cut = ~kept_units(units, program.masks, program.parameters)
    keep = np.zeros(units.n_units, dtype=bool)
    why = np.full(units.n_units, -1, dtype=np.int64)
    _spread(survey.needs, keep, why, cut)
    kept = _zeroed_but_kept(survey, units, keep, why)
    fillers, skipped = _fill(units, keep)
    return Living(keep | fillers, fillers, kept, skipped, tuple(survey.readings))


def _fill(units: UnitMap, keep: Keep) -> tuple[Keep, tuple[str, ...]]:
    """One unit for each dimension that would lose all, and what to say about it. Shapes: keep (n_units,)"""
    fillers, skipped = np.zeros_like(keep), []
    for where, members in units.widths:
        if not (keep | fillers)[members].any():
            fillers[members[0]] = True
            skipped.append(f"{where}: all {len(members)} units are cut; one stays to keep the graph whole")
    for of_index, least in units.choices:
        stay = (keep | fillers)[of_index]
        missing = least - int(stay.sum())
        for unit in dict.fromkeys(of_index[~stay][: max(missing, 0)].tolist()):
            fillers[unit] = True
        if missing > 0:
            skipped.append(f"a router chooses {least} of its experts; {missing} that are cut stay for it")
    for first, second in units.walk.unequal:
        stay = keep | fillers
        one = units.of_ids(first)
        gone = one[~units.kept_ids(stay, first)]
        if gone.size and units.kept_ids(stay, first).sum() == units.kept_ids(stay, second).sum():
            fillers[gone[0]] = True
            skipped.append("a projected LSTM would have as many hidden units as projections; one more stays")
    return fillers, tuple(skipped)


def _spread(needs: Sequence[Need], keep: Keep, why: Ids, cut: Keep) -> None:
    """Mark, in place, all that those that stay need; most readers come later in the graph, so from its end."""
    grew = True
    while grew:
        grew = False
        for i in reversed(range(len(needs))):
            need = needs[i]
            stay = (need.rows == ALWAYS) | keep[need.rows]
            wanted = need.units[need.matrix[stay].any(0)]
            new = wanted[~keep[wanted] & ~cut[wanted]]
            if new.size:
                keep[new], why[new], grew = True, i, True


def _zeroed_but_kept(survey: Survey, units: UnitMap, keep: Keep, why: Ids) -> tuple[Kept, ...]:
    """For each layer the filters without a non-zero weight that stay, by reason."""
    found: list[Kept] = []
    for filters in survey.filters:
        zeroed, rows, layer = filters.zeroed, filters.row_units, place(filters.node)
        counted: dict[str, Counter[str]] = {}
        for unit in rows[zeroed & (rows >= 0)]:
            if keep[unit] and why[unit] >= 0:
                need = survey.needs[why[unit]]
                reason = "its channel is alive beyond this layer" if need.reason == LIVE else need.reason
                counted.setdefault(reason, Counter())[survey.places[need.node]] += 1
        for reason, readers in counted.items():
            found.append(Kept(layer, readers.total(), reason, readers.most_common(1)[0][0]))
        found.extend(_pinned(units, layer, int((zeroed & (rows < 0)).sum())))
    return tuple(found)


def _pinned(units: UnitMap, layer: str, n: int) -> list[Kept]:
    pin = next((units.pin_at[axis] for axis in ((f"{layer}.weight", 0),) if axis in units.pin_at), None)
    return [Kept(layer, n, pin.reason, pin.node)] if n and pin is not None and pin.reason != _OUTPUT else []
