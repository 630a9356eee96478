"""Features of a dense network as targets beside its answers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compressor import capture, prune
from compressor.asking import PruneSettings, Recipe
from compressor.data import Batch
from compressor.data.arrays import Arrays, ArraySource
from compressor.program import InputSpec, Program, landmarks, tapped
from compressor.pruning.matching import matched
from compressor.training import Agreement, TaughtSource, feature_loss
from compressor.training.features import ANSWER_WEIGHT


def unlabelled(n: int, *shape: int) -> ArraySource:
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))
    return ArraySource("noise", Arrays(x, None), Arrays(x[: n // 2], None), None)


class Residual(nn.Module):
    """Two residual blocks without normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 1)) for _ in "ab")
        self.end = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x.relu())
        return self.end(x.relu().mean((2, 3)))


def residual() -> Program:
    torch.manual_seed(0)
    return capture(Residual().eval(), InputSpec("x", (None, 3, 8, 8)))


def test_a_dense_network_has_nothing_to_learn_and_a_changed_one_has() -> None:
    program, dense = residual(), residual()
    found = matched(program, TaughtSource(unlabelled(8, 3, 8, 8), dense.module))  # type: ignore[arg-type]
    assert found is not None
    source, form = found
    (batch,) = source.batches("train", 8)
    with torch.no_grad():
        same, measured = form.outputs.loss(Agreement(), form.module.eval()(*batch.inputs), batch)
        alone = Agreement().loss(measured, Batch(batch.inputs, batch.target[0]))
        assert float(same) == pytest.approx(ANSWER_WEIGHT * float(alone), abs=1e-5) and float(alone) < 1e-4
        program.parameters["blocks.0.0.weight"].mul_(3)
        changed, _ = form.outputs.loss(Agreement(), form.module(*batch.inputs), batch)
    assert float(changed) > float(same) + 0.01


def test_validation_is_of_the_answers_alone() -> None:
    program = residual()
    found = matched(program, TaughtSource(unlabelled(4, 3, 8, 8), residual().module))  # type: ignore[arg-type]
    assert found is not None
    (batch,) = found[0].batches("val", 4)
    assert isinstance(batch.target, Tensor) and batch.target.shape == (2, 5)


def test_labels_another_graph_and_no_landmark_are_not_matched() -> None:
    program, data = residual(), unlabelled(4, 3, 8, 8)
    other = capture(Residual().blocks[0], InputSpec("x", (None, 8, 8, 8)))
    one_layer = capture(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), InputSpec("x", (None, 3, 8, 8)))
    for pruned, source in [
        (program, data),
        (program, TaughtSource(data, program.module, keeps_labels=True)),
        (program, TaughtSource(data, other.module)),
        (one_layer, TaughtSource(data, one_layer.module)),
    ]:
        assert matched(pruned, source) is None  # type: ignore[arg-type]


def test_retraining_without_labels_ends_nearer_to_the_dense_network_on_the_way() -> None:
    dense = residual()
    data = unlabelled(64, 3, 8, 8)
    settings = PruneSettings(
        ratio=1.5,
        pattern="channel",
        method="magnitude",
        of="macs",
        round_to=1,
        retrain_recipe=Recipe(epochs=4, batch_size=16),
    )
    trained, _ = prune(dense, settings, data=data)
    cut, _ = prune(dense, replace(settings, retrain_recipe=None), data=data)
    names = landmarks(dense)
    with torch.no_grad():
        ways = [tapped(p.module.eval(), names)(data.train.inputs[:16])[1] for p in (dense, trained, cut)]
        error = [float(feature_loss(way, ways[0])) for way in ways[1:]]
    assert error[0] < 0.8 * error[1]
