"""A sweep: each ratio from the start, nothing done twice, broken-off ratios go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from compressor.asking import PruneSettings, Recipe
from compressor.data.arrays import ArraySource
from compressor.errors import TrainingError, UsageError
from compressor.program import Program
from compressor.progress import Progress
from compressor.pruning import PruneReport, prune, sweep

SETTINGS = PruneSettings(ratio=2.0, method="magnitude", retrain_recipe=Recipe(epochs=2, batch_size=32))
RATIOS = (1.5, 2.0, 3.0)


def test_every_ratio_is_what_prune_makes_of_it(tiny: Program, data: ArraySource, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    def keep(ratio: float, pruned: Program, report: PruneReport) -> None:
        seen.append((ratio, report.got))

    rows = sweep(tiny, SETTINGS, RATIOS, tmp_path, data=data, on_pruned=keep)
    assert seen == [(row.asked, row.got) for row in rows] and [row.asked for row in rows] == list(RATIOS)
    _, alone = prune(tiny, replace(SETTINGS, ratio=3.0), data=data)
    assert (rows[2].got, rows[2].params, rows[2].metrics) == (alone.got, alone.kept_params, alone.stages[-1].metrics)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.5x.json", "2x.json", "3x.json"]


def test_what_is_done_is_not_done_again_and_what_was_broken_off_goes_on(
    tiny: Program, data: ArraySource, tmp_path: Path, break_after: Callable[[int], Progress], stopped: type[Exception]
) -> None:
    whole = sweep(tiny, SETTINGS, RATIOS, tmp_path / "all" / "whole", data=data)
    broken, steps = tmp_path / "broken", 5 * 2
    with pytest.raises(stopped):
        sweep(tiny, SETTINGS, RATIOS, broken, data=data, progress=break_after(steps + 7))
    assert {file.name for file in broken.iterdir()} == {"1.5x.json", "2x.resume"}
    again: list[float] = []
    rows = sweep(tiny, SETTINGS, RATIOS, broken, data=data, on_pruned=lambda ratio, *_: again.append(ratio))
    assert again == [2.0, 3.0]
    assert [replace(row, seconds=0.0) for row in rows] == [replace(row, seconds=0.0) for row in whole]


def test_rows_of_another_sweep_are_not_taken_for_this_one(
    tiny: Program, other_tiny: Program, data: ArraySource, tmp_path: Path
) -> None:
    plain = SETTINGS.untrained()
    sweep(tiny, plain, RATIOS, tmp_path)
    for program, settings in ((other_tiny, plain), (tiny, replace(plain, of="macs"))):
        with pytest.raises(TrainingError, match=r"1\.5x\.json: belongs to a sweep of another model"):
            sweep(program, settings, RATIOS, tmp_path)
    (tmp_path / "1.5x.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"1\.5x\.json: is no row of a sweep"):
        sweep(tiny, plain, RATIOS, tmp_path)
    for wrong in ((), (2.0, 2.0)):
        with pytest.raises(UsageError, match="a sweep needs ratios, each once"):
            sweep(tiny, plain, wrong, tmp_path)
