"""Layers trained in turn: what is frozen does not move, momentum or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.asking import Recipe
from compressor.data import open_task
from compressor.data.arrays import ArraySource
from compressor.errors import UsageError
from compressor.program import InputSpec, Program, capture
from compressor.pruning.alternate import AlternateHook
from compressor.training import BaseHook, fit

LINEAR = {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}

BEFORE_NORM = {"one.bias", "two.bias"}
"""Biases that the norm behind them takes out again: their gradient is rounding, or 0."""


class Watch(BaseHook):
    """The parameters that moved in each epoch."""

    def __init__(self, program: Program) -> None:
        self.program, self.moved = program, list[set[str]]()
        self.before = self.copy()

    def copy(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.program.parameters.items()}

    def on_epoch(self, epoch: int) -> dict[str, float]:
        now = self.copy()
        self.moved.append({name for name in now if not torch.equal(now[name], self.before[name])})
        self.before = now
        return {}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_linear_layers_and_convolutions_take_turns(tiny: Program, data: ArraySource, optimizer: str) -> None:
    recipe = Recipe(epochs=4, batch_size=32, optimizer=optimizer, weight_decay=1e-3)  # type: ignore[arg-type]
    watch = Watch(tiny)
    fit(tiny.module, data, open_task(None), recipe, hooks=[AlternateHook(tiny), watch])
    convolutions = set(tiny.parameters) - LINEAR - BEFORE_NORM
    assert [moved - BEFORE_NORM for moved in watch.moved] == [LINEAR, convolutions, LINEAR, convolutions]


def test_without_the_hook_everything_moves(tiny: Program, data: ArraySource) -> None:
    watch = Watch(tiny)
    fit(tiny.module, data, open_task(None), Recipe(epochs=1, batch_size=32), hooks=[watch])
    assert watch.moved == [set(tiny.parameters)]


def test_a_restored_hook_goes_on_with_its_turn(tiny: Program) -> None:
    hook, later = AlternateHook(tiny), AlternateHook(tiny)
    hook.on_epoch(1)
    later.load_state_dict(hook.state_dict())
    for p in tiny.parameters.values():
        p.grad = torch.zeros_like(p)
    later.on_gradients()
    assert {name for name, p in tiny.parameters.items() if p.grad is None} == LINEAR


def test_a_network_with_one_kind_only_is_a_usage_error() -> None:
    net = capture(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), [InputSpec("x", (None, 4))])
    with pytest.raises(UsageError, match="--alternate: trains convolutions and linear layers in turn"):
        AlternateHook(net)
