"""What is checked before a choice and remembered after it; it must never choose what goes."""

from __future__ import annotations

from dataclasses import replace

from compressor.asking import PruneSettings
from compressor.cost import Stopwatch, count_macs
from compressor.errors import UsageError
from compressor.program import Program


def resolved(settings: PruneSettings, stopwatch: Stopwatch | None) -> PruneSettings:
    """The settings, if what they ask for can be timed.

    Raises:  UsageError if something has to be timed and there is no stopwatch.
    """
    if stopwatch is None and settings.takes_time:
        raise UsageError("no stopwatch: latency is measured; give prune a compressor.OperatorClock()")
    return settings


def remember(program: Program, dense: Program, settings: PruneSettings) -> Program:
    """The pruned program with its units and the size of the dense one, if that is not there yet, in its record."""
    record = dense.record
    return program.replace(
        record=replace(
            program.record,
            dense_params=record.dense_params or dense.n_parameters,
            dense_macs=record.dense_macs or count_macs(dense),
            walk=settings.walk.to_mapping(),
        )
    )
