"""A teacher's weights are cast once, its answers are the same bit for bit, and the module that was given stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compressor import capture
from compressor.program import InputSpec
from compressor.training.teacher import Teacher


class Network(nn.Module):
    """A matrix that is read as it is beside the product it is cast for, and one that a norm reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        return self.out(self.inner(x) + self.inner.weight.sum(0))


def plain() -> nn.Module:
    torch.manual_seed(0)
    return Network().eval()


def program() -> nn.Module:
    return capture(plain(), InputSpec("x", (None, 3, 6, 6))).module.eval()


def tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(), nn.Linear(108, 5))
    net[1].weight = net[0].weight
    return net.eval()


class Casts(TorchDispatchMode):
    """Counts casts of what has the given shapes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._shapes, self.n = {tuple(p.shape) for p in module.parameters()}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += func is torch.ops.aten._to_copy.default and tuple(args[0].shape) in self._shapes
        return func(*args, **(kwargs or {}))


NETWORKS = {"module": plain, "program": program, "tied": tied}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_answers_are_the_same_bit_for_bit(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    module, x = make(), torch.randn(4, 3, 6, 6)
    before = {name: (id(p), p.detach().clone()) for name, p in module.named_parameters()}
    teacher = Teacher(module, dtype)
    with torch.autocast("cpu", dtype):
        with torch.no_grad():
            expected = module(x)
        answers = []
        for _ in range(2):
            teacher.cast_once([x])
            answers.append(teacher(x))
    assert all(torch.equal(answer, expected) and not answer.requires_grad for answer in answers)
    for name, p in module.named_parameters():
        assert id(p) == before[name][0] and p.dtype == torch.float32 and torch.equal(p, before[name][1])


@pytest.mark.parametrize("cast", [True, False])
def test_nothing_is_cast_at_every_use(cast: bool) -> None:
    """But for the weight that something reads as it is; the twin casts every one."""
    module, x = plain(), torch.randn(4, 3, 6, 6)
    teacher = Teacher(module, torch.bfloat16)
    if cast:
        with torch.autocast("cpu", torch.bfloat16):
            teacher.cast_once([x])
    with torch.autocast("cpu", torch.bfloat16), Casts(module) as casts:
        teacher(x)
    assert casts.n == (1 if cast else 6), "three weights and three biases, of which inner.weight stays"


def test_looking_draws_no_random_numbers() -> None:
    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    before = torch.get_rng_state()
    Teacher(Drawing(), torch.bfloat16).cast_once([torch.ones(2, 2)])
    assert torch.equal(torch.get_rng_state(), before)


def test_without_autocast_the_module_itself_is_asked() -> None:
    module, x = plain(), torch.randn(4, 3, 6, 6)
    teacher = Teacher(module, None)
    teacher.cast_once([x])
    with torch.no_grad():
        assert torch.equal(teacher(x), module(x))
