"""`retrain`: what was cut stays cut, what is compact is trained, and what it needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compressor.asking import PruneSettings, Recipe
from compressor.compaction import compact
from compressor.data.arrays import ArraySource
from compressor.errors import UsageError
from compressor.program import Program
from compressor.pruning import prune, retrain

RECIPE = Recipe(epochs=4, batch_size=32, lr=5e-3, weight_decay=1e-3)


def test_a_masked_program_stays_masked_and_learns(tiny: Program, data: ArraySource) -> None:
    pruned, _ = prune(tiny, PruneSettings(ratio=2.0))
    before = {name: p.detach().clone() for name, p in pruned.parameters.items()}
    tuned, report = retrain(pruned, RECIPE, data=data)
    for name, mask in pruned.masks.items():
        assert not tuned.parameters[name].detach()[~mask].any()
    assert all(torch.equal(before[name], p) for name, p in pruned.parameters.items()), "the input is left untouched"
    first, last = (row.metrics for row in report.stages)
    assert first is not None and last is not None and last["accuracy"] > max(first["accuracy"], 0.8)
    assert report.n_zeroed == pruned.n_zeroed and len(report.history) == RECIPE.epochs
    assert {"epoch", "lr", "train_loss", "accuracy", "seconds"} <= set(report.history[0])
    assert {row["sparsity"] for row in report.history} == {pruned.n_zeroed / pruned.n_parameters}


def test_a_compact_program_is_trained_as_any_other(tiny: Program, data: ArraySource) -> None:
    small, _ = compact(prune(tiny, PruneSettings(ratio=2.0))[0])
    tuned, report = retrain(small, RECIPE, data=data)
    assert tuned.n_parameters == small.n_parameters and not tuned.masks
    assert "sparsity" not in report.history[0]
    last = report.stages[-1].metrics
    assert last is not None and last["accuracy"] > 0.8


def test_a_teacher_is_needed_and_used(tiny: Program, data: ArraySource) -> None:
    pruned, _ = prune(tiny, PruneSettings(ratio=2.0))
    with pytest.raises(UsageError, match="--distill needs --teacher MODEL"):
        retrain(pruned, replace(RECIPE, distill=0.5), data=data)
    alone, _ = retrain(pruned, RECIPE, data=data)
    taught, _ = retrain(pruned, replace(RECIPE, distill=0.5), data=data, teacher=tiny)
    assert not torch.equal(alone.parameters["one.weight"], taught.parameters["one.weight"])


def test_no_data_is_a_usage_error(tiny: Program) -> None:
    with pytest.raises(UsageError, match="no data: give --data"):
        retrain(tiny, RECIPE, data=None)
