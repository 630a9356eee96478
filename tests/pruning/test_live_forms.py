"""Networks whose training form has more than their evaluation form: pruned by the one, they train in the other."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor.data.arrays import Arrays, ArraySource
from compressor.pruning import Loop, prune_in_your_loop


def step(model: nn.Module, side: int, optimizer: torch.optim.Optimizer) -> None:
    """One step of the loss that the papers add up: the auxiliary heads count 0.3."""
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.rand(2, 3, side, side, generator=generator), torch.tensor([0, 1])
    optimizer.zero_grad()
    outputs: Any = model(images)
    parts = list(outputs) if isinstance(outputs, tuple) else [outputs]
    losses = [nn.functional.cross_entropy(part, labels) for part in parts]
    (losses[0] + 0.3 * sum(losses[1:], torch.zeros(()))).backward()
    optimizer.step()


SIDE, HEADS = 64, ("aux1", "aux2")


@pytest.fixture(scope="module")
def googlenet() -> tuple[compressor.Program, nn.Module]:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    modules: list[nn.Module] = []
    dense = compressor.load(
        "init", arch="torchvision:googlenet", on_module=modules.append,
        arch_args={"num_classes": 4, "init_weights": False, "aux_logits": True},
        inputs=[compressor.InputSpec("x", (None, 3, SIDE, SIDE))],
    )  # fmt: skip
    return dense, modules[0]


def test_auxiliary_heads_train_along_and_the_compact_network_trains(
    googlenet: tuple[compressor.Program, nn.Module],
) -> None:
    dense, model = googlenet[0], copy.deepcopy(googlenet[1])
    before = {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith(HEADS)}
    assert before and not any(n.startswith(HEADS) for n in dense.parameters)

    def train(network: nn.Module, loop: Loop) -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        loop.attach(optimizer)
        assert set(before) <= set(loop.report().untouched), "what evaluation does not read is named"
        step(network, SIDE, optimizer)

    settings = compressor.PruneSettings(ratio=2, of="macs", method="magnitude")
    pruned, report = prune_in_your_loop(dense, model, settings, train)
    assert report.got >= 2
    now = dict(model.named_parameters())
    assert any(not torch.equal(before[n], now[n]) for n in before), "its losses reached the auxiliary heads"
    small, proof = compressor.compact(pruned)
    assert proof.agreement is not None

    module = small.module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    step(module, SIDE, optimizer)
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and bool(torch.isfinite(gradient).all()) and bool(gradient.any()), name


def test_the_tools_own_loop_trains_them_too(googlenet: tuple[compressor.Program, nn.Module]) -> None:
    dense, model = googlenet[0], copy.deepcopy(googlenet[1])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(4, 3, SIDE, SIDE, generator=generator), torch.tensor([0, 1, 2, 3])
    data = ArraySource("noise", Arrays(images, labels), Arrays(images[:2], labels[:2]), 4)
    recipe = compressor.Recipe(epochs=1, batch_size=4, optimizer="sgd", lr=0.01, weight_decay=0.0)
    settings = compressor.PruneSettings(ratio=2, of="macs", method="magnitude", retrain_recipe=recipe)
    pruned, report = compressor.prune(dense, settings, data=data, model=model)
    assert report.got >= 2
    pruned.check_masks()
    now = dict(model.named_parameters())
    moved = {name for name, value in before.items() if not torch.equal(value, now[name])}
    assert {name for name in before if name.startswith(HEADS)} <= moved
    assert not any(name.startswith(HEADS) for name in pruned.parameters)


def test_what_is_cut_is_dead_in_the_training_form_too() -> None:
    """A cut unit is 0 for an auxiliary head as well: its weights, and those of its norm, are."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
            self.head, self.aux = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 4, 1)

        def forward(self, x: torch.Tensor) -> Any:
            features = self.body(x)
            out = self.head(features).mean((2, 3))
            return (out, self.aux(features).mean((2, 3)), features) if self.training else out

    net: Any = build_with_seed(Net)
    pruner = compressor.Pruner(net, "3x8x8", ratio=1.5, method="magnitude", round_to=1)
    pruner.attach(torch.optim.SGD(net.parameters(), lr=0.1))
    report = pruner.finish()
    assert set(report.untouched) == {"aux.weight", "aux.bias"}
    features = net.train()(torch.rand(4, 3, 8, 8))[2]
    dead = ~pruner.masks["body.0.weight"].flatten(1).any(1)
    assert bool(dead.any()) and not features[:, dead].any() and bool(features[:, ~dead].any())


def build_with_seed(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return kind()
