"""Features of a dense network as targets beside its answers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compressor import capture, prune, retrain
from compressor.asking import PruneSettings, Recipe
from compressor.data import Batch
from compressor.data.arrays import Arrays, ArraySource
from compressor.program import InputSpec, Program, landmarks, tapped
from compressor.pruning.matching import guided, matched
from compressor.training import Agreement, TaughtSource, TrainingOutputs, feature_loss
from compressor.training.features import ANSWER_WEIGHT, GUIDANCE


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


def labelled(n: int) -> ArraySource:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 3, 8, 8, generator=draw), torch.randint(5, (n,), generator=draw)
    return ArraySource("noise", Arrays(x, y), Arrays(x[: n // 2], y[: n // 2]), 5)


def test_a_teacher_beside_labels_gives_its_features_too_where_it_is_the_same_graph() -> None:
    program, dense = residual(), residual()
    taught = guided(program, dense, Recipe(distill=0.5))
    assert taught is not None
    teacher, form = taught
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        same = form.outputs.taught_loss(form.module(x), teacher(x), 4.0)
        program.parameters["blocks.0.0.weight"].mul_(3)
        outputs, answer = form.module(x), teacher(x)
        changed = form.outputs.taught_loss(outputs, answer, 4.0)
    assert float(same) == pytest.approx(0, abs=1e-4)
    alone = TrainingOutputs().taught_loss(outputs[0], answer[0], 4.0)
    assert float(changed) == pytest.approx(float(alone) + GUIDANCE * float(feature_loss(outputs[1], answer[1])))
    assert float(feature_loss(outputs[1], answer[1])) > 0.01


def test_no_share_no_teacher_and_another_graph_have_no_features_beside_labels() -> None:
    program = residual()
    other = capture(Residual().blocks[0], InputSpec("x", (None, 8, 8, 8)))
    assert guided(program, residual(), Recipe(distill=0.0)) is None
    assert guided(program, None, Recipe(distill=0.5)) is None and guided(program, other, Recipe(distill=0.5)) is None


def way_lost(dense: Program, trained: Program, x: Tensor) -> float:
    """How far a network is from the dense one at the landmarks."""
    names = landmarks(dense)
    with torch.no_grad():
        theirs, mine = (tapped(p.module.eval(), names)(x)[1] for p in (dense, trained))
        return float(feature_loss(mine, theirs))


@pytest.mark.parametrize("by", ["prune", "retrain"])
def test_distillation_ends_nearer_to_the_dense_network_on_the_way_than_labels_alone(by: str) -> None:
    dense, data = residual(), labelled(64)
    ended: list[float] = []
    for share in (0.0, 0.5):
        recipe = Recipe(epochs=4, batch_size=16, distill=share)
        settings = PruneSettings(
            ratio=1.5, pattern="channel", method="magnitude", of="macs", round_to=1,
            retrain_recipe=recipe if by == "prune" else None,
        )  # fmt: skip
        found, _ = prune(dense, settings, data=data)
        if by == "retrain":
            found, _ = retrain(found, recipe, data=data, teacher=dense)
        ended.append(way_lost(dense, found, data.train.inputs[:16]))
    assert ended[1] < 0.8 * ended[0]


def test_a_search_does_not_follow_the_features_that_it_draws_away(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def seen(*given: object) -> None:
        asked.append(True)

    monkeypatch.setattr("compressor.pruning.run.guided", seen)
    recipe = Recipe(epochs=1, batch_size=32, distill=0.5)
    settings = PruneSettings(ratio=1.5, pattern="channel", method="admm", of="macs", round_to=1, prune_recipe=recipe)
    prune(residual(), settings, data=labelled(64))
    assert not asked
    prune(residual(), replace(settings, prune_recipe=None, retrain_recipe=recipe), data=labelled(64))
    assert asked
