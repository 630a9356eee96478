"""What `compact` is asked for: values that are refused, and when something has to be timed."""

from __future__ import annotations

import inspect

import pytest

from compressor.asking import build
from compressor.asking.compact import DEFAULTS, CompactSettings
from compressor.compaction import compact
from compressor.errors import UsageError


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"lowering": "fold"}, "--lowering fold: choose one of auto, dense"),
        ({"round_to": "none"}, "--round-to none: a whole number from 1, or auto"),
        ({"round_to": -2}, "--round-to -2: must be at least 1, or auto"),
        ({"threads": 0}, "--threads 0: must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(said: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(CompactSettings, said)


def test_only_what_is_chosen_by_time_needs_a_clock() -> None:
    assert DEFAULTS.takes_time and build(CompactSettings, {"lowering": "dense", "round_to": "auto"}).takes_time
    assert not build(CompactSettings, {"lowering": "dense", "round_to": "8"}).takes_time


def test_the_library_does_as_declared_where_nothing_is_asked() -> None:
    parameters = inspect.signature(compact).parameters
    assert {name: parameters[name].default for name in vars(DEFAULTS) if name != "threads"} == {
        name: value for name, value in vars(DEFAULTS).items() if name != "threads"
    }
