"""What is checked before a choice and remembered after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compressor.asking import PruneSettings
from compressor.cost import count_macs
from compressor.errors import UsageError
from compressor.program import Program
from compressor.pruning.choosing import remember, resolved


def test_time_is_only_counted_with_a_stopwatch() -> None:
    settings = PruneSettings(ratio=2.0)
    assert resolved(settings, None) is settings
    with pytest.raises(UsageError, match="no stopwatch"):
        resolved(PruneSettings(ratio=2.0, of="latency"), None)


def test_the_dense_size_is_remembered_once(tiny: Program) -> None:
    settings = PruneSettings(ratio=2.0, through_norm="exact")
    first = remember(tiny, tiny, settings)
    assert first.record.walk == {"through_norm": "exact"}
    assert (first.record.dense_params, first.record.dense_macs) == (tiny.n_parameters, count_macs(tiny))
    later = replace(first.record, dense_params=7)
    assert remember(tiny, first.replace(record=later), settings).record.dense_params == 7
