"""How long a bench measures, and on what: numbers that are refused, and what nobody has to say."""

from __future__ import annotations

import inspect
import math

import pytest

from compressor.asking import build
from compressor.asking.bench import DEFAULTS, BenchSettings, Plan
from compressor.errors import UsageError
from compressor.timing import bench


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 1.0, 2.0, 1), "--min-runs 0: must be at least 1"),
        ((1, -1.0, 2.0, 1), "--min-seconds -1: must be at least 0"),
        ((1, math.nan, 2.0, 1), "--min-seconds nan: must be a number"),
        ((1, 1.0, math.inf, 1), "--max-seconds inf: must be a number"),
        ((1, 3.0, 2.0, 1), "--max-seconds 2 is below --min-seconds 3"),
        ((1, 1.0, 2.0, -1), "--warmup -1: must be at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(values: tuple[int, float, float, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan(*values)


def test_numbers_are_read_from_one_text_or_from_several() -> None:
    asked = build(BenchSettings, {"threads": ("1,2", "4"), "batch": (1, 16), "min_runs": 3})
    assert (asked.threads, asked.batches, asked.plan.min_runs) == ((1, 2, 4), (1, 16), 3)
    with pytest.raises(UsageError, match="--batch 0: write whole numbers above 0"):
        build(BenchSettings, {"batch": ("0",)})


def test_the_library_measures_as_declared() -> None:
    found = {name: parameter.default for name, parameter in inspect.signature(bench).parameters.items()}
    assert (found["provider"], found["threads"], found["batches"]) == ("cpu", DEFAULTS.threads, DEFAULTS.batches)
    assert {name: found[name] for name in vars(DEFAULTS.plan)} == vars(DEFAULTS.plan)
