"""Rounds of timed blocks, the subjects interleaved; it must never know which runtime a subject runs in."""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from compressor.asking.bench import Plan

BLOCK_S = 1e-3
"""Shortest timed block. Reading the clock costs some 0.1 µs: 1 ms makes that one part in ten thousand."""

_WARM_UP_S, _WARM_UP_AGAIN_S = 0.1, 0.02
"""Warm-up goes on for this long: frequency scaling and lazy initialisation are not counted in runs. The
second is for a model that is opened again."""

_MOST_WARM_UPS = 100_000
_CALIBRATING_RUNS = 9
_MOST_INNER = 1000

_MOST_OPENINGS = 12
_ROUNDS_PER_OPENING = 4
_OPENING_SHARE = 0.5


class Runner(Protocol):
    """A model that is ready to run."""

    def block(self, n_inner: int) -> float:
        """Seconds that `n_inner` inferences took, one after the other, the last one finished."""
        ...


@dataclass(frozen=True)
class RoundProgress:
    """After a round: how many there were in this configuration, and the share of all work that is done."""

    threads: int
    batch: int
    rounds: int
    fraction: float


@dataclass(frozen=True)
class Samples:
    """Seconds per inference, a row per round and a column per subject.

    `opening` numbers the opening in which a round was measured; `n_inner` is inferences per block, in the
    last one.

    Shapes:  seconds (rounds, subjects), opening (rounds,), n_inner (subjects,)
    """

    seconds: np.ndarray
    opening: np.ndarray
    n_inner: tuple[int, ...]


def measure(
    open_runners: Callable[[], Sequence[Runner]],
    plan: Plan,
    *,
    on_round: Callable[[int, float], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Samples of all runners over the same rounds; `on_round` gets (rounds so far, share done).

    The subjects are opened several times in one measurement. Where a session's weights and buffers come to
    lie makes a small network up to 5 % faster or slower for as long as that session lives (measured: LeNet-5,
    onnxruntime, one file against itself), so rounds of one opening, however many, cannot tell two models
    apart by less.
    """
    started = clock()
    runners = open_runners()
    opening_s = clock() - started
    n_openings = _n_openings(plan, len(runners), opening_s)
    rows: list[list[float]] = []
    opening: list[int] = []
    n_inner: tuple[int, ...] = ()

    def report(share: float) -> None:
        if on_round is not None:
            on_round(len(rows), (opening[-1] + share) / n_openings)

    with _no_garbage_collection():
        for k in range(n_openings):
            if k:
                runners = open_runners()  # while the old ones are alive: freed memory would be handed out again
            n_inner = tuple(_calibrate(runner, plan.warmup, k == 0, clock) for runner in runners)
            deadline = started + plan.max_seconds * (k + 1) / n_openings
            for row, share in _rounds(runners, n_inner, plan, n_openings, deadline, clock):
                rows.append(row)
                opening.append(k)
                report(share)
    return Samples(np.array(rows), np.array(opening), n_inner)


def _n_openings(plan: Plan, n_subjects: int, opening_s: float) -> int:
    """As many as there are rounds for, and as take no longer than half of the measuring itself."""
    affordable = 1 + int(_OPENING_SHARE * plan.min_seconds * n_subjects / max(opening_s, 1e-3))
    return max(1, min(_MOST_OPENINGS, plan.min_runs // _ROUNDS_PER_OPENING, affordable))


def _rounds(
    runners: Sequence[Runner],
    n_inner: Sequence[int],
    plan: Plan,
    n_openings: int,
    deadline: float,
    clock: Callable[[], float],
) -> Iterator[tuple[list[float], float]]:
    """Rounds of one opening and the share of it that is done, until its part of the plan is fulfilled.

    The order changes from round to round, so that no subject is always the one after a slow one. Where there
    are several, each block begins with one inference that is not timed: it brings back what the others have
    pushed out of the caches, for a model in service runs alone.
    """
    wanted_rounds, wanted_s = math.ceil(plan.min_runs / n_openings), plan.min_seconds / n_openings
    begun, n_rounds, measured_s, done = clock(), 0, 0.0, False
    while not done:
        row = [0.0] * len(runners)
        for i in order(len(runners), n_rounds):
            if len(runners) > 1:
                runners[i].block(1)
            seconds = runners[i].block(n_inner[i])
            measured_s += seconds / len(runners)
            row[i] = seconds / n_inner[i]
        n_rounds += 1
        wanted = min(n_rounds / wanted_rounds, measured_s / wanted_s if wanted_s else 1.0)
        now = clock()
        allowed = (now - begun) / (deadline - begun) if deadline > begun else 1.0
        share = min(1.0, max(wanted, allowed))
        done = share >= 1.0
        yield row, share


def copied_s(block: Callable[[int], float]) -> float:
    """Median seconds of one inference over a second's work, warmed up; for a figure beside the measured ones."""
    for _ in range(_CALIBRATING_RUNS):
        once_s = block(1)
    n_runs = max(_CALIBRATING_RUNS, min(_MOST_INNER, int(1 / max(once_s, 1e-6))))
    return median(block(1) for _ in range(n_runs))


def order(n: int, round_index: int) -> list[int]:
    """Subjects in the order of this round: rotated every second round, backwards in between."""
    shift = (round_index // 2) % n
    rotated = [*range(shift, n), *range(shift)]
    return rotated if round_index % 2 == 0 else rotated[::-1]


def _calibrate(runner: Runner, warmup: int, is_first: bool, clock: Callable[[], float]) -> int:
    """Warms up and finds how many inferences make a block, by the median of the last: one alone may be a
    hiccup."""
    started, n_done = clock(), 0
    last = deque[float](maxlen=_CALIBRATING_RUNS)
    least_s = _WARM_UP_S if is_first else _WARM_UP_AGAIN_S
    while n_done < max(1, warmup) or (clock() - started < least_s and n_done < _MOST_WARM_UPS):
        last.append(runner.block(1))
        n_done += 1
    typical_s = median(last)
    return max(1, math.ceil(BLOCK_S / typical_s)) if typical_s > 0 else _MOST_INNER


@contextmanager
def _no_garbage_collection() -> Generator[None]:
    """Python's collector would land in somebody's block; `timeit` turns it off for the same reason."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
