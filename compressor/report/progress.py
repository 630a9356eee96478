"""Progress as bars on a terminal and as sparse lines in a log; it must never hold what is being done."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column

from compressor.printable import printable
from compressor.progress import Progress
from compressor.report.console import console_on
from compressor.report.text import duration, metric, shorten
from compressor.terminal import is_movable

LINE_EVERY_S = 30.0


@contextmanager
def open_progress(stream: TextIO) -> Generator[Progress]:
    """Bars if the stream is a terminal, else lines; a bar never outlives the block, whatever ends it.

    What is looked for stands first; what is measured comes last and takes the columns that are left.
    """
    if not is_movable(stream):
        yield Lines(stream)
        return
    console = console_on(stream)
    whole, rest = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", style="bold", table_column=whole),
        BarColumn(bar_width=min(24, max(console.width // 8, 4)), table_column=whole),
        MofNCompleteColumn(table_column=whole),
        TextColumn("{task.fields[unit]}", table_column=whole),
        TimeRemainingColumn(compact=True, table_column=whole),
        TextColumn("{task.fields[values]}", table_column=rest),
    )
    with RichProgress(*columns, console=console, transient=True, redirect_stdout=False, expand=True) as bars:
        yield Bars(bars)


class Bars:
    """A bar for the stage at hand; a finished stage leaves one line."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._started_s = 0.0

    def start(self, stage: str, total: int, unit: str) -> None:
        self._drop()
        self._started_s = time.monotonic()
        self._task = self._bars.add_task(shorten(stage, 20), total=total, unit=unit, values="")

    def advance(self, n: int = 1, /, **values: float) -> None:
        if self._task is None:
            return
        self._bars.update(self._task, advance=n)
        if values:
            self._bars.update(self._task, values=_shown(values))

    def finish(self, stage: str, **values: float) -> None:
        self._drop()
        self._bars.console.print(
            _done(stage, time.monotonic() - self._started_s, values), markup=False, highlight=False
        )

    def note(self, text: str) -> None:
        self._bars.console.print(f"note: {text}", markup=False, highlight=False)

    def _drop(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class Lines:
    """One line per finished stage, and one about every half minute in between."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stage, self._unit = "", ""
        self._total, self._done = 0, 0
        self._started_s = self._told_s = clock()
        self._values: dict[str, float] = {}

    def start(self, stage: str, total: int, unit: str) -> None:
        self._stage, self._unit, self._total, self._done = stage, unit, total, 0
        self._started_s = self._told_s = self._clock()
        self._values = {}

    def advance(self, n: int = 1, /, **values: float) -> None:
        self._done += n
        self._values.update(values)
        now = self._clock()
        if now - self._told_s >= LINE_EVERY_S:
            self._told_s = now
            self._write(f"{self._stage}: {self._position()}{_tail(self._values)}, {self._time_left(now)}")

    def finish(self, stage: str, **values: float) -> None:
        self._write(_done(stage, self._clock() - self._started_s, values))

    def note(self, text: str) -> None:
        self._write(f"note: {text}")

    def _position(self) -> str:
        share = f" ({self._done * 100 // self._total} %)" if self._total else ""
        return f"{self._unit} {self._done:,} of {self._total:,}{share}"

    def _time_left(self, now: float) -> str:
        spent_s = now - self._started_s
        left_s = spent_s / max(self._done, 1) * max(self._total - self._done, 0)
        return f"{duration(spent_s)} so far, about {duration(left_s)} left"

    def _write(self, line: str) -> None:
        self._stream.write(printable(line) + "\n")
        self._stream.flush()


def _shown(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {metric(name, value)}" for name, value in values.items())


def _tail(values: Mapping[str, float]) -> str:
    return f", {_shown(values)}" if values else ""


def _done(stage: str, seconds: float, values: Mapping[str, float]) -> str:
    return f"{stage}: done in {duration(seconds)}{_tail(values)}"
