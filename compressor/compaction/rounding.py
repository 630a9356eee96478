"""Widths that the runtime likes: some of what is dead stays, as zeros, where that is faster.

It must never keep more than a layer had, nor let what stays take part in a result: what is kept is a filler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from compressor.axes import Ids, Keep, UnitMap
from compressor.compaction.dead import Living
from compressor.cost import USUAL, Preferences
from compressor.errors import UsageError
from compressor.program import Program, find_layers
from compressor.sparsity import FilledWork, find_likes, steps_of

_SAME = 1e-6


@dataclass(frozen=True)
class Rounding:
    """Up to which multiple widths are filled: 1 leaves them, 0 fills them to what `preferences` like."""

    multiple: int = 1
    preferences: Preferences = USUAL

    @property
    def fills(self) -> bool:
        return self.multiple != 1

    @property
    def trouble(self) -> tuple[str, ...]:
        """What the user should know about the preferences."""
        return () if self.preferences.trouble is None else (self.preferences.trouble,)

    def filled(self, program: Program, units: UnitMap, verdict: Living) -> Living:
        """The verdict with more fillers among what is dead.

        Raises:  UsageError if the multiple is below 0.
        """
        if self.multiple < 0:
            raise UsageError(f"--round-to {self.multiple}: a whole number from 1, or auto")
        if self.multiple == 1:
            return verdict
        more = self._liked if self.multiple == 0 else self._multiples
        keep = more(program, units, verdict.keep)
        return replace(verdict, keep=keep, fillers=verdict.fillers | (keep & ~verdict.keep))

    def _multiples(self, program: Program, units: UnitMap, keep: Keep) -> Keep:
        steps = steps_of(units, find_layers(program), self.multiple)
        for members in _partly_dead(units, keep):
            n, step = int(keep[members].sum()), int(steps[units.group_of[members[0]]])
            keep = _with_fillers(keep, members, -(-n // step) * step)
        return keep

    def _liked(self, program: Program, units: UnitMap, keep: Keep) -> Keep:
        """Each width at the next multiple that its layers can load, where that costs no work, and at the next block
        where that saves some: zeros cost memory."""
        likes = find_likes(program, units, self.preferences)
        work = FilledWork.of(program, units, self.preferences)
        least = work.at(keep)
        for members in _partly_dead(units, keep):
            g, n = units.group_of[members[0]], int(keep[members].sum())
            for multiple, most in ((likes.multiples[g], 1 + _SAME), (likes.blocks[g], 1 - _SAME)):
                more = _with_fillers(keep, members, -(-n // int(multiple)) * int(multiple))
                does = work.at(more)
                if does <= most * least:
                    keep, least = more, does
        return keep


def _partly_dead(units: UnitMap, keep: Keep) -> Iterator[Ids]:
    for group in units.groups:
        members = np.array(group)
        if keep[members].any() and not keep[members].all():
            yield members


def _with_fillers(keep: Keep, members: Ids, width: int) -> Keep:
    """Dead units of one group added until it has that width, or is whole. Shapes: keep (n_units,) -> (n_units,)"""
    n = int(keep[members].sum())
    filled = keep.copy()
    filled[members[~keep[members]][: max(min(width, len(members)) - n, 0)]] = True
    return filled
