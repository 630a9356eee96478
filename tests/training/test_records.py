from __future__ import annotations

import math

from compressor.training.records import EpochRecord, best_record


def _history(*values: float | None) -> list[EpochRecord]:
    return [
        EpochRecord(i + 1, 0.1, 1.0, {} if value is None else {"m": value}, {}, 0.0) for i, value in enumerate(values)
    ]


def test_best_is_the_first_of_equals_in_the_right_direction() -> None:
    history = _history(0.5, None, 0.9, 0.9, 0.2)
    best, least = best_record(history, "m", True), best_record(history, "m", False)
    assert best is history[2] and least is history[4]


def test_not_a_number_is_never_best() -> None:
    history = _history(math.nan, 0.1, math.nan)
    assert best_record(history, "m", True) is history[1]


def test_none_without_evaluation_or_metric() -> None:
    assert best_record(_history(None, None), "m", True) is None
    assert best_record(_history(0.5), "other", True) is None
