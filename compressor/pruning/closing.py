"""A ratio of time that holds for the network, not for the sum of its operators; it must never time anything itself.

The budget of `--of latency` adds up what single layers take. Overheads, fused operators and everything without a width
are in no layer, so the network gets more or less fast than that. Here the sum is corrected by what the network does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from compressor.errors import RatioError
from compressor.program import Program
from compressor.sparsity import Selector, apply_masks, merge_masks

Speedup = Callable[[Program, Program], float | None]
"""How many times faster the second, masked program is than the first once it is compacted; None: nobody can say."""

NEAR = 0.05
"""How far from what was asked a measured speed-up may lie."""
_TRIES, _LEAST, _SAME = 7, 1.01, 0.02


@dataclass(frozen=True)
class Closed:
    """`ratio` of the sum over layers that makes the network `speedup` times faster, `is_near` what was asked."""

    ratio: float
    speedup: float
    is_near: bool
    tries: int


def close(program: Program, selector: Selector, asked: float, speedup: Speedup) -> Closed | None:
    """The ratio whose cut, by the weights as they are, makes the network `asked` times faster; None if nothing can be
    measured.

    Between a cut that was too slow and one that was too fast it goes on halfway between their middle and where their
    line meets what was asked (in logarithms), before that in proportion. Widths that the runtime likes lie far apart:
    where no cut comes near, the nearest is taken, and of those that do no worse the one that cuts least. Beyond the
    square of what was asked it does not go: a network that is not fast enough then has its time elsewhere.

    Raises:  RatioError if not even the sum can get `asked` times smaller.
    """
    found: list[tuple[float, float]] = []
    ratio, most = asked, asked**2
    for _ in range(_TRIES):
        try:
            measured = _measured(program, selector, ratio, speedup)
        except RatioError:
            if not found:
                raise
            most = ratio
            measured = None
        if measured is not None:
            found.append((ratio, measured))
            if abs(measured / asked - 1) <= NEAR:
                break
        elif not found:
            return None
        ratio = _next(found, asked, most)
    off = min(abs(math.log(measured / asked)) for _, measured in found)
    best = min(pair for pair in found if abs(math.log(pair[1] / asked)) <= off + _SAME)
    return Closed(*best, abs(best[1] / asked - 1) <= NEAR, len(found))


def _measured(program: Program, selector: Selector, ratio: float, speedup: Speedup) -> float | None:
    chosen = selector.select(program.parameters, ratio, program.masks)
    masks = merge_masks(program.masks, chosen.masks)
    cut = program.clone().replace(masks=masks)
    apply_masks(cut.module, masks)
    return speedup(program, cut)


def _next(found: list[tuple[float, float]], asked: float, most: float) -> float:
    slow = max((pair for pair in found if pair[1] < asked), key=lambda pair: pair[0], default=None)
    fast = min((pair for pair in found if pair[1] >= asked), key=lambda pair: pair[0], default=None)
    if slow is None or fast is None or slow[0] >= fast[0]:
        ratio, measured = found[-1]
        further = ratio * asked / measured
        return max(min(further, math.sqrt(ratio * most)), _LEAST)
    (low, slower), (high, faster) = ((math.log(r), math.log(s)) for r, s in (slow, fast))
    share = (math.log(asked) - slower) / max(faster - slower, 1e-9)
    return math.exp(low + (high - low) * (share + 0.5) / 2)
