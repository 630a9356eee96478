"""A network that takes one sample at a time: measured and trained so, and nothing else in silence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.analysis import analyze
from compressor.asking import PruneSettings, Recipe
from compressor.compaction import compact
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import UsageError
from compressor.program import InputSpec, Program, capture
from compressor.pruning import prune, retrain

SAMPLES = Arrays(torch.randn(30, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3)
DATA = ArraySource("noise", SAMPLES, SAMPLES, 3)
ONE, MANY = (Recipe(epochs=1, batch_size=size, lr=1e-2) for size in (1, 10))


class Loop(nn.Module):
    """Goes through its batch in Python: what is captured at batch 1 answers for one sample, however many it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def logits(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x).relu()).relu().mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.logits(x[i : i + 1]) for i in range(x.shape[0])])


@pytest.fixture
def loop() -> Loop:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Loop()


@pytest.fixture
def program(loop: Loop) -> Program:
    return capture(loop, [InputSpec("x", (None, 1, 6, 6))])


def test_accuracy_is_that_of_all_samples(loop: Loop, program: Program) -> None:
    with torch.no_grad():
        right = float((loop.logits(SAMPLES.inputs).argmax(1) == SAMPLES.target).float().mean())
    found = analyze(program, data=DATA)
    assert found.metrics is not None and found.metrics["n"] == 30
    assert found.metrics["accuracy"] == pytest.approx(right)


def test_it_is_pruned_trained_and_compacted_one_sample_at_a_time(program: Program) -> None:
    settings = PruneSettings(ratio=2, method="magnitude", retrain_recipe=ONE)
    pruned, report = prune(program, settings, data=DATA)
    assert all(stage.metrics is not None and stage.metrics["n"] == 30 for stage in report.stages)
    small, proof = compact(pruned, data=DATA)
    assert proof.metrics is not None and proof.metrics["n"] == 30 and small.fixed_batch == 1
    tuned, _ = retrain(small, ONE, data=DATA)
    assert tuned.fixed_batch == 1


def test_training_in_other_batches_is_refused_before_anything_is_done(program: Program) -> None:
    with pytest.raises(UsageError, match="--batch-size 10: the network takes batches of 1 only; give --batch-size 1"):
        retrain(program, MANY, data=DATA)
    with pytest.raises(UsageError, match="takes batches of 1 only"):
        prune(program, PruneSettings(ratio=2, method="magnitude", retrain_recipe=MANY), data=DATA)


def test_twin_without_the_right_batches_only_the_first_sample_is_answered(program: Program) -> None:
    assert len(program.module(SAMPLES.inputs)) == 1
