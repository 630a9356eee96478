"""A first look at what a cut does to latency: models side by side for a second; it must never replace a bench.

With one thread it is time on the processor that counts, as for single operators: a crowded machine makes all models
slower, but none more than the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.timing.measure import BLOCK_S, order
from compressor.timing.measured import CutLatency
from compressor.timing.operator_clock import OpenModel
from compressor.timing.statistics import compare

_MOST_S = 0.15
"""An inference that takes longer leaves no time for as many rounds as an interval needs."""

_ROUNDS = 4
_OPENINGS = (2, 6)
"""At least and at most. Each opening has its own luck with where weights come to lie (`measure`)."""


def glance(
    before: bytes, after: bytes, feeds: Sequence[NDArray[Any]], threads: int = 1, seconds: float = 1.0
) -> CutLatency | None:
    """Both ONNX models on the same inputs in onnxruntime on the CPU, for about that many seconds.

    None if one inference takes too long for that.

    Raises:  whatever onnxruntime raises for a model that it cannot run.
    """
    taken, opening = side_by_side((before, after), feeds, threads, seconds, most_s=_MOST_S)
    if not len(taken):
        return None
    found = compare(taken[:, 0], taken[:, 1], np.random.default_rng(0), opening)
    then, now = (float(median) for median in np.median(taken, axis=0))
    return CutLatency(found.speedup, found.low, found.high, found.verdict, then, now, threads, len(feeds[0]))


def side_by_side(
    models: Sequence[bytes], feeds: Sequence[NDArray[Any]], threads: int, seconds: float,
    most_s: float = float("inf"),
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    """Seconds per inference, a row per round and a column per model, and the opening of each round.

    No rows if the first model's inference takes more than `most_s`.
    """
    rows: list[list[float]] = []
    opening: list[int] = []
    n_openings = _OPENINGS[0]
    while len(opening) < n_openings * _ROUNDS:
        opened: list[OpenModel] = []
        for model in models:
            opened.append(OpenModel(model, threads, feeds=feeds))
            if not rows and opened[0].once_s > most_s and opened[0].block(1) > most_s:
                return np.zeros((0, len(models))), np.zeros(0, dtype=np.int64)
        once = [min(model.block(1), model.once_s) for model in opened]
        n_inner = [max(1, round(BLOCK_S / max(each, 1e-7))) for each in once]
        if not rows:
            each_s = sum(max(s, BLOCK_S) + s for s in once) * _ROUNDS
            n_openings = min(max(int(seconds / each_s), _OPENINGS[0]), max(_OPENINGS[1], int(seconds)))
        number = len(rows) // _ROUNDS
        for k in range(_ROUNDS):
            row = [0.0] * len(models)
            for i in order(len(models), k):
                opened[i].block(1)  # brings back what the others have pushed out of the caches
                row[i] = opened[i].block(n_inner[i]) / n_inner[i]
            rows.append(row)
            opening.append(number)
    return np.array(rows), np.array(opening)
