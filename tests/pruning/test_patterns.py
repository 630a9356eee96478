"""Patterns from one command to the next: what `prune` promises is what `compact` writes, and runs resume under each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from compressor.asking import Admm, PruneSettings, Recipe
from compressor.compaction import compact
from compressor.data.arrays import ArraySource
from compressor.program import Program
from compressor.progress import Progress
from compressor.pruning import prune

STEPS = 5
RECIPE = Recipe(epochs=2, batch_size=32)
BreakAfter = Callable[[int], Progress]


@pytest.mark.parametrize("ratio", [2.0, 6.0])
@pytest.mark.parametrize("pattern", ["shape", "filter+shape", "channel+shape", "shape:channel"])
def test_what_is_promised_is_what_compaction_writes(tiny: Program, pattern: str, ratio: float) -> None:
    with torch.no_grad():
        for parameter in tiny.parameters.values():  # batch norm begins with biases of 0
            parameter.add_(torch.rand_like(parameter), alpha=0.1)
    pruned, report = prune(tiny, PruneSettings(ratio=ratio, pattern=pattern, floor=0.02))
    small, done = compact(pruned, lowering="columns")
    nonzero = sum(int((p != 0).sum()) for p in small.parameters.values())
    assert report.kept_params == nonzero and type(report.got) is float
    assert small.n_parameters == nonzero and done.still_zeroed == 0
    assert ratio <= tiny.n_parameters / small.n_parameters < 1.02 * ratio
    assert done.lowered and "dense" not in {layer.form for layer in done.lowered}


@pytest.mark.parametrize("pattern", ["channel+shape", "shape", "block:1x4"])
def test_a_broken_off_run_goes_on_bit_for_bit(
    tiny: Program, data: ArraySource, tmp_path: Path, break_after: BreakAfter, stopped: type[Exception], pattern: str
) -> None:
    admm = Admm(stages=2, layer_rho=(("hidden", 0.1),))
    settings = PruneSettings(ratio=3.0, pattern=pattern, admm=admm, prune_recipe=RECIPE, retrain_recipe=RECIPE)
    whole, _ = prune(tiny, settings, data=data)
    file = tmp_path / "run.resume"
    with pytest.raises(stopped, match="broken off"):
        prune(tiny, settings, data=data, progress=break_after(3 * STEPS + 2), resume_file=file)
    resumed, _ = prune(tiny, settings, data=data, resume_file=file, resume=True)
    for name, tensor in whole.module.tensors().items():
        assert torch.equal(tensor, resumed.module.tensors()[name]), name
    assert whole.masks.keys() == resumed.masks.keys()
    assert all(torch.equal(mask, resumed.masks[name]) for name, mask in whole.masks.items())
