from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from compressor.asking.recipe import Recipe
from compressor.errors import TrainingError
from compressor.training.optimizer import add_l1_gradient, build_optimizer, matrices

OWN = {"params", "fused", "foreach", "decoupled_weight_decay"}


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_kind_and_groups(name: str, kind: type, make_net: Callable[..., nn.Module]) -> None:
    recipe = Recipe.from_mapping({"optimizer": name, "weight_decay": 0.1, "lr": 0.5})
    optimizer = build_optimizer(make_net(), recipe)
    assert type(optimizer) is kind
    decayed, free = optimizer.param_groups
    assert [p.dim() for p in decayed["params"]] == [2, 2] and decayed["weight_decay"] == 0.1
    assert [p.dim() for p in free["params"]] == [1, 1, 1, 1] and free["weight_decay"] == 0.0
    assert decayed["lr"] == free["lr"] == 0.5 and decayed["fused"]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_fused_kernel_computes_what_the_plain_one_does(name: str) -> None:
    fused_w, plain_w = (nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3)) for _ in range(2))
    recipe = Recipe.from_mapping({"optimizer": name, "weight_decay": 0.1, "lr": 0.05})
    holder = nn.Module()
    holder.w = fused_w
    optimizer = build_optimizer(holder, recipe)
    options = {k: v for k, v in optimizer.param_groups[0].items() if k not in OWN}
    plain = type(optimizer)([plain_w], **options, foreach=False, fused=False)
    for _ in range(5):
        for weight, stepper in ((fused_w, optimizer), (plain_w, plain)):
            weight.grad = weight.detach().cos()
            stepper.step()
    assert torch.allclose(fused_w, plain_w, atol=1e-6)
    assert not torch.allclose(fused_w, torch.linspace(-1, 1, 6).reshape(2, 3), atol=1e-3)


def test_sgd_without_momentum_drops_nesterov() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), Recipe(optimizer="sgd", momentum=0))
    assert not optimizer.param_groups[0]["nesterov"]
    assert build_optimizer(nn.Linear(2, 2), Recipe(optimizer="sgd")).param_groups[0]["nesterov"]


def test_frozen_parameters_are_left_out(make_net: Callable[..., nn.Module]) -> None:
    net = make_net()
    net[0].requires_grad_(False)
    taken = [p for group in build_optimizer(net, Recipe()).param_groups for p in group["params"]]
    assert len(taken) == 4 and all(p.requires_grad for p in taken)


def test_all_frozen_is_an_error(make_net: Callable[..., nn.Module]) -> None:
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        build_optimizer(make_net().requires_grad_(False), Recipe())


def test_l1_gradient_is_that_of_autograd_and_zero_at_zero() -> None:
    weight = nn.Parameter(torch.tensor([[1.5, -2.0, 0.0]]))
    unreached = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(1, 3)
    add_l1_gradient([weight, unreached], 0.25)
    assert weight.grad.tolist() == [[1.25, 0.75, 1.0]]
    assert unreached.grad is None
    add_l1_gradient([weight], 0.0)
    assert weight.grad.tolist() == [[1.25, 0.75, 1.0]]


def test_matrices_are_what_has_two_dimensions() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 4))
    assert [tuple(p.shape) for p in matrices(list(layers.parameters()))] == [(2, 1, 3, 3), (4, 3)]
