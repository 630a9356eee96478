"""What is checked before a choice and remembered after it; it must never choose what goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from compressor.asking import PruneSettings
from compressor.axes import Block, UnitMap, find_units
from compressor.cost import Stopwatch, count_macs
from compressor.errors import UsageError
from compressor.program import Program
from compressor.pruning.uniform import uniform_units
from compressor.pruning.whole_layers import whole_layers


def resolved(settings: PruneSettings, stopwatch: Stopwatch | None) -> PruneSettings:
    """The settings, if what they ask for can be timed.

    Raises:  UsageError if something has to be timed and there is no stopwatch.
    """
    if stopwatch is None and settings.takes_time:
        raise UsageError("no stopwatch: latency is measured; give prune a compressor.OperatorClock()")
    return settings


def units_of(
    program: Program, settings: PruneSettings, note: Callable[[str], None] = lambda said: None,
    routed: Mapping[str, Sequence[float]] | None = None,
) -> UnitMap:  # fmt: skip
    """The units that the settings choose among; `routed` says what matters of experts, where that was measured.

    Raises:  as `uniform_units`, where the same is to go from every layer.
    """
    units = find_units(program, settings.walk)
    if not settings.uniform or settings.pattern.blocks:
        return units
    return uniform_units(program, units, note, routed)


def layers_of(
    program: Program, settings: PruneSettings, note: Callable[[str], None] = lambda said: None
) -> tuple[Block, ...] | None:
    """The whole layers that the settings choose among, where a configuration is to say how many are left; else None.

    Raises:  as `whole_layers`.
    """
    return whole_layers(program, note) if settings.uniform and settings.pattern.blocks else None


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
