"""A scripted clock of a machine whose kernels like certain widths; it must never take time."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.cost import Preferences, filled_work
from compressor.program import Program


class Kernels:
    """A stopwatch by which time is work, widths filled up to what the table says that kernels compute."""

    def __init__(self, table: Preferences) -> None:
        self.table, self.asked = table, 0

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        self.asked += len(programs)
        return tuple(1e-9 * filled_work(program, self.table) for program in programs)


class Broken:
    """A stopwatch whose runtime does not work."""

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        raise RuntimeError("no kernel image\nis available")
