from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.asking.recipe import Recipe
from compressor.errors import TrainingError
from compressor.training.distillation import soft_loss
from compressor.training.hooks import BaseHook
from compressor.training.processes import Processes
from compressor.training.step import Stepper

ALONE = Processes(torch.device("cpu"))
PLAIN = Recipe(optimizer="sgd", momentum=0)


class Recorder(BaseHook):
    """Notes the gradients that hooks see and the weights after the update."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.gradients: list[Tensor] = []
        self.weights: list[Tensor] = []

    def on_gradients(self) -> None:
        (weight, *_) = self.module.parameters()
        assert weight.grad is not None
        self.gradients.append(weight.grad.clone())

    def on_update(self) -> None:
        self.weights.append(next(self.module.parameters()).detach().clone())


def _batch(data: Any) -> Any:
    return next(data.batches("train", 16))


def test_hooks_see_the_gradient_before_and_the_weight_after_the_update(
    data: Any, task: Any, make_net: Callable[..., nn.Module]
) -> None:
    net = make_net()
    before = net[0].weight.detach().clone()
    recorder = Recorder(net)
    loss = Stepper(net, task, PLAIN, ALONE, (recorder,), None).step(_batch(data), 0.5, "here")
    assert loss > 0
    assert torch.equal(recorder.weights[0], net[0].weight)
    assert torch.allclose(recorder.weights[0], before - 0.5 * recorder.gradients[0], atol=1e-6)


def test_gradient_that_a_hook_cuts_does_not_reach_the_weight(
    data: Any, task: Any, make_net: Callable[..., nn.Module]
) -> None:
    net = make_net()

    class Cut(BaseHook):
        def on_gradients(self) -> None:
            net[0].weight.grad[0] = 0

    before = net[0].weight.detach().clone()
    recipe = Recipe(optimizer="sgd", momentum=0, l1=0.1)
    Stepper(net, task, recipe, ALONE, (Cut(),), None).step(_batch(data), 0.5, "here")
    assert torch.equal(net[0].weight[0], before[0])
    assert not torch.equal(net[0].weight[1], before[1])


def test_l1_reaches_matrices_only(data: Any, task: Any, make_net: Callable[..., nn.Module]) -> None:
    nets = [make_net(dropout=0.0), make_net(dropout=0.0)]
    start = nets[0][0].weight.detach().clone()
    for net, l1 in zip(nets, (0.0, 0.1), strict=True):
        recipe = Recipe(optimizer="sgd", momentum=0, l1=l1)
        Stepper(net, task, recipe, ALONE, (), None).step(_batch(data), 1.0, "here")
    assert torch.allclose(nets[0][0].weight - nets[1][0].weight, 0.1 * start.sign(), atol=1e-6)
    assert torch.equal(nets[0][0].bias, nets[1][0].bias)


def test_clipping_bounds_the_whole_gradient(data: Any, task: Any, make_net: Callable[..., nn.Module]) -> None:
    net = make_net()
    before = torch.cat([p.detach().flatten() for p in net.parameters()])
    recipe = Recipe(optimizer="sgd", momentum=0, clip_norm=1e-3)
    Stepper(net, task, recipe, ALONE, (), None).step(_batch(data), 1.0, "here")
    moved = torch.cat([p.detach().flatten() for p in net.parameters()]) - before
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_weight_decay_shrinks_matrices_only(task: Any, data: Any) -> None:
    net = nn.Linear(12, 4)

    class NoGradient(BaseHook):
        def on_gradients(self) -> None:
            for parameter in net.parameters():
                assert parameter.grad is not None
                parameter.grad.zero_()

    weight, bias = net.weight.detach().clone(), net.bias.detach().clone()
    recipe = Recipe(optimizer="sgd", momentum=0, weight_decay=0.1)
    Stepper(net, task, recipe, ALONE, (NoGradient(),), None).step(_batch(data), 1.0, "here")
    assert torch.allclose(net.weight, 0.9 * weight)
    assert torch.equal(net.bias, bias)


def test_what_a_batch_does_not_reach_stays(data: Any, task: Any) -> None:
    """Gradients of the batch before, even at 0, would let decay and momentum move it."""

    class Reached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.beside, self.reaches = nn.Linear(12, 4), nn.Linear(12, 4), True

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x) + self.beside(x) if self.reaches else self.out(x)

    net = Reached()
    stepper = Stepper(net, task, Recipe(optimizer="sgd", momentum=0.9, weight_decay=0.1), ALONE, (), None)
    stepper.step(_batch(data), 0.1, "here")
    kept, moved = net.beside.weight.detach().clone(), net.out.weight.detach().clone()
    net.reaches = False
    stepper.step(_batch(data), 0.1, "here")
    assert torch.equal(net.beside.weight, kept) and not torch.equal(net.out.weight, moved)


def test_loss_that_is_no_number_keeps_the_weights(
    data: Any, bad_loss_after: Any, make_net: Callable[..., nn.Module]
) -> None:
    net = make_net()
    stepper = Stepper(net, bad_loss_after(1), PLAIN, ALONE, (), None)
    stepper.step(_batch(data), 0.1, "epoch 1, step 1")
    kept = net[0].weight.detach().clone()
    with pytest.raises(TrainingError, match=r"epoch 1, step 2: the loss is nan at learning rate 0\.1\ntry a lower lr"):
        stepper.step(_batch(data), 0.1, "epoch 1, step 2")
    assert torch.equal(net[0].weight, kept)


def test_full_distillation_ignores_labels_and_leaves_the_teacher(
    data: Any, task: Any, make_net: Callable[..., nn.Module], weights_of: Any, same_weights: Any
) -> None:
    student, teacher = make_net(1, dropout=0.0), make_net(2)
    taught = weights_of(teacher)
    stepper = Stepper(student, task, Recipe(distill=1.0, temperature=2.0), ALONE, (), teacher.train())
    batch = _batch(data)
    losses = [stepper.step(batch, 0.02, "here") for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]
    assert same_weights(taught, weights_of(teacher)) and not teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_distillation_mixes_both_losses(data: Any, task: Any, make_net: Callable[..., nn.Module]) -> None:
    values = []
    for share in (0.0, 0.25, 1.0):
        stepper = Stepper(make_net(1, dropout=0.0), task, Recipe(distill=share), ALONE, (), make_net(2))
        values.append(stepper.step(_batch(data), 0.1, "here"))
    assert values[1] == pytest.approx(0.75 * values[0] + 0.25 * values[2], rel=1e-5)
    inputs = _batch(data).inputs
    with torch.no_grad():
        outputs, taught = make_net(1, dropout=0.0)(*inputs), make_net(2).eval()(*inputs)
    assert values[2] == pytest.approx(float(soft_loss(outputs, taught, Recipe().temperature)), rel=1e-5)


def test_distillation_needs_a_teacher(task: Any, make_net: Callable[..., nn.Module]) -> None:
    with pytest.raises(TrainingError, match=r"distill = 0\.5: there is no teacher"):
        Stepper(make_net(), task, Recipe(distill=0.5), ALONE, (), None)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_with_unscaled_gradients(
    data: Any, task: Any, make_net: Callable[..., nn.Module], precision: Any
) -> None:
    norms = []
    for chosen in ("fp32", precision):
        net = make_net(dropout=0.0)
        recorder = Recorder(net)
        recipe = Recipe(optimizer="sgd", momentum=0, precision=chosen)
        Stepper(net, task, recipe, ALONE, (recorder,), None).step(_batch(data), 0.1, "here")
        norms.append(recorder.gradients[0].norm().item())
        assert net[0].weight.dtype == torch.float32
    assert norms[1] == pytest.approx(norms[0], rel=0.05)


def test_label_smoothing_reaches_the_task(data: Any, task: Any, make_net: Callable[..., nn.Module]) -> None:
    sharp, smooth = (
        Stepper(make_net(dropout=0.0), task, Recipe(label_smoothing=s), ALONE, (), None).step(_batch(data), 0.1, "")
        for s in (0.0, 0.5)
    )
    assert sharp != smooth
