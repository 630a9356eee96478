"""`--pattern layer` down the whole road: chosen, drawn to 0 or cut, retrained, removed, proven equal, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from compressor.asking import PruneSettings, Recipe
from compressor.compaction import compact
from compressor.cost import count_macs
from compressor.data.arrays import Arrays, ArraySource
from compressor.exporting import export_onnx
from compressor.program import Program
from compressor.pruning import Pruner, prune, retrain
from compressor.sparsity import cut_blocks
from tests.axes.residual_networks import residual_program


@pytest.fixture
def images() -> ArraySource:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(80, 3, 8, 8, generator=random)
    y = torch.randint(4, (80,), generator=random)
    return ArraySource("images", Arrays(x[:64], y[:64]), Arrays(x[64:], y[64:]), 4)


RECIPE = Recipe(epochs=2, batch_size=16)
ROADS: dict[str, dict[str, Any]] = {
    "magnitude, by the output": {"method": "magnitude"},
    "magnitude, by weights": {"method": "magnitude", "score": "l2"},
    "magnitude, by the loss": {"method": "magnitude", "score": "taylor"},
    "in steps": {"method": "magnitude", "steps": 2, "stage_recipe": RECIPE},
    "admm": {"method": "admm", "prune_recipe": RECIPE},
    "admm, by weights": {"method": "admm", "prune_recipe": RECIPE, "score": "l2"},
    "random": {"method": "random"},
}


@pytest.mark.parametrize("pattern", ["layer", "layer+channel"])
@pytest.mark.parametrize("road", ROADS)
def test_what_is_promised_is_what_compact_writes(images: ArraySource, road: str, pattern: str) -> None:
    program = residual_program("pre-activation", torch.float32)
    ratio = 1.5 if pattern == "layer" else 4.0
    settings = PruneSettings(
        **{"ratio": ratio, "of": "macs", "pattern": pattern, "retrain_recipe": RECIPE, "round_to": 1, **ROADS[road]}
    )
    pruned, report = prune(program, settings, data=images)
    assert len(cut_blocks(pruned)) == 1 and report.got >= ratio
    assert any("whole residual blocks" in warning for warning in report.warnings) == (pattern == "layer")
    small, done = compact(pruned, data=images)
    assert (small.n_parameters, count_macs(small)) == (report.compact_params, report.compact_macs)
    assert report.zeroed == 0 and done.agreement is not None
    assert report.stages[-1].params == report.compact_params
    gone = {layer.name for layer in report.layers if layer.kept == 0}
    assert gone and gone.isdisjoint(name.rpartition(".")[0] for name in small.parameters)


def test_retraining_leaves_a_cut_block_cut(images: ArraySource) -> None:
    pruned, _ = prune(
        residual_program("scaled", torch.float32), PruneSettings(ratio=1.2, pattern="layer", method="magnitude")
    )
    trained, _ = retrain(pruned, RECIPE, data=images)
    assert cut_blocks(trained) == cut_blocks(pruned)
    compact(trained)


def test_a_model_in_ones_own_loop_loses_blocks_too(images: ArraySource) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), Adds(), Adds(), torch.nn.Flatten(), torch.nn.Linear(256, 4))
    pruner = Pruner(net, "3x8x8", ratio=1.05, pattern="layer", method="magnitude")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    pruner.attach(optimizer)
    for batch in images.batches("train", 16):
        torch.nn.functional.cross_entropy(net(batch.inputs[0]), batch.target).backward()
        optimizer.step()
    pruner.finish()
    assert len(cut_blocks(pruner.program())) == 1


class Adds(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x).relu()


@pytest.mark.parametrize("masks_only", [False, True])
def test_masks_alone_remove_it_too(masks_only: bool) -> None:
    pruned, report = prune(
        residual_program("attention", torch.float32), PruneSettings(ratio=1.2, pattern="layer", method="magnitude")
    )
    small, _ = compact(pruned, masks_only=masks_only)
    assert small.n_parameters == report.compact_params


def test_the_graph_that_is_written_has_fewer_operators(tmp_path: Path) -> None:
    def operators(program: Program) -> int:
        export_onnx(program, tmp_path / "model.onnx", force=True)
        return len(onnx.load(str(tmp_path / "model.onnx")).graph.node)

    program = residual_program("attention", torch.float32)
    pruned, _ = prune(program, PruneSettings(ratio=1.2, pattern="layer", method="magnitude"))
    assert operators(compact(pruned)[0]) <= operators(program) - 5
