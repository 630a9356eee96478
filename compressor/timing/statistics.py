"""From samples to numbers with an interval and a verdict; it must never measure anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from compressor.timing.measured import Verdict

N_RESAMPLES = 2000
CONFIDENCE = 0.95
SMALLEST_DIFFERENCE = 0.01
"""Speed-ups closer to 1 than this are called no difference: code alignment and page placement alone move a
program by that much (Mytkowicz et al. 2009, "Producing Wrong Data Without Doing Anything Obviously
Wrong")."""

FEWEST_ROUNDS = 6
"""Below six samples no interval between two of them holds the median with 95 % (2 · 0.5^5 > 0.05)."""

_STUDENT_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201)
"""97.5 % quantiles for 1 to 11 degrees of freedom: 2 to 12 openings, and there are no more."""

OUTLIER_Z = 3.5
_CHUNK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Summary:
    """Statistics of one subject's samples."""

    n_runs: int
    median_s: float
    mean_s: float
    p90_s: float
    p99_s: float
    min_s: float
    mad_s: float
    n_outliers: int


@dataclass(frozen=True)
class Comparison:
    """How many times faster the second is than the first, with the 95 % interval."""

    speedup: float
    low: float
    high: float
    verdict: Verdict


def summarise(samples_s: np.ndarray) -> Summary:
    """Order statistics and outliers of the samples.

    Shapes:  samples_s (rounds,)
    """
    median = float(np.median(samples_s))
    return Summary(
        n_runs=len(samples_s),
        median_s=median,
        mean_s=float(samples_s.mean()),
        p90_s=float(np.percentile(samples_s, 90)),
        p99_s=float(np.percentile(samples_s, 99)),
        min_s=float(samples_s.min()),
        mad_s=float(np.median(np.abs(samples_s - median))),
        n_outliers=count_outliers(samples_s),
    )


def count_outliers(samples_s: np.ndarray) -> int:
    """Samples whose modified z-score is above 3.5; none when more than half of them are equal.

    Source:  Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers", sec. 3.3.
    """
    distances = np.abs(samples_s - np.median(samples_s))
    mad = float(np.median(distances))
    if mad == 0:
        return 0
    return int((0.6745 * distances / mad > OUTLIER_Z).sum())


def compare(
    samples_a: np.ndarray, samples_b: np.ndarray, rng: np.random.Generator, opening: np.ndarray | None = None
) -> Comparison:
    """Speed-up of b over a: ratio of medians, percentile bootstrap over rounds, verdict.

    Rounds are resampled whole, a's and b's sample together: what slows a round down slows both. With
    `opening`, a group number per round in ascending order, groups are resampled first and rounds within them,
    for rounds of one opening share its luck. The percentiles are taken further out when there are few groups.

    Shapes:  samples_a, samples_b, opening (rounds,): the same rounds
    Source:  Efron and Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13; two levels: Davison and
             Hinkley 1997, "Bootstrap Methods and their Application", sec. 3.8; few groups: Hesterberg 2015,
             "What Teachers Should Know About the Bootstrap", sec. 4.2 (the expanded percentile interval).
    """
    if samples_a.shape != samples_b.shape or samples_a.ndim != 1 or not len(samples_a):
        raise ValueError(f"samples must come in pairs, one per round: {samples_a.shape} and {samples_b.shape}")
    speedup = float(np.median(samples_a) / np.median(samples_b))
    groups = np.zeros(len(samples_a), dtype=np.int64) if opening is None else opening

    def ratio(rows: np.ndarray) -> np.ndarray:
        return np.median(samples_a[rows], axis=1) / np.median(samples_b[rows], axis=1)

    low, high = _interval(_resampled(ratio, groups, rng), groups)
    return Comparison(speedup, low, high, _verdict(speedup, low, high, len(samples_a)))


def median_interval(
    samples_s: np.ndarray, rng: np.random.Generator, opening: np.ndarray | None = None
) -> tuple[float, float]:
    """95 % interval of the median, by the bootstrap of `compare`.

    Shapes:  samples_s, opening (rounds,)
    """
    groups = np.zeros(len(samples_s), dtype=np.int64) if opening is None else opening
    return _interval(_resampled(lambda rows: np.median(samples_s[rows], axis=1), groups, rng), groups)


def _interval(statistics: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    tail = 100 * tail_share(len(np.unique(groups)))
    low, high = np.percentile(statistics, [tail, 100 - tail])
    return float(low), float(high)


def tail_share(n_groups: int) -> float:
    """Share of the resamples to leave out at each end, so that the interval is a 95 % one for few groups too.

    Φ(−t·√(n/(n − 1))): the spread between n groups is found too small by √((n − 1)/n), and Student's t takes
    the normal's place. One group knows nothing of the spread between groups; it is left as it is.
    """
    if n_groups < 2:
        return (1 - CONFIDENCE) / 2
    t = _STUDENT_T[min(n_groups, len(_STUDENT_T) + 1) - 2]
    return NormalDist().cdf(-t * math.sqrt(n_groups / (n_groups - 1)))


def _resampled(
    statistic: Callable[[np.ndarray], np.ndarray], groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The statistic of resampled rounds, groups first and rounds within them.

    Shapes:  groups (rounds,) -> (N_RESAMPLES,); statistic (resamples, rounds) of row numbers -> (resamples,)
    """
    n_rounds = len(groups)
    _, starts, sizes = np.unique(groups, return_index=True, return_counts=True)
    slot_of_round = np.arange(n_rounds) * len(starts) // n_rounds
    per_chunk = max(1, _CHUNK_ELEMENTS // n_rounds)
    parts: list[np.ndarray] = []
    for begin in range(0, N_RESAMPLES, per_chunk):
        n = min(per_chunk, N_RESAMPLES - begin)
        group = rng.integers(0, len(starts), (n, len(starts)))[:, slot_of_round]
        picked = starts[group] + (rng.random((n, n_rounds)) * sizes[group]).astype(np.int64)
        parts.append(statistic(picked))
    return np.concatenate(parts)


def _verdict(speedup: float, low: float, high: float, n_rounds: int) -> Verdict:
    if n_rounds < FEWEST_ROUNDS or low <= 1 <= high or abs(speedup - 1) < SMALLEST_DIFFERENCE:
        return "no difference"
    return "faster" if speedup > 1 else "slower"
