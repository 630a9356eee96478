"""Axis rules of element-by-element operators: what couples, what does not, and what is still 0 where it was cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.axes.tracing import Traced, trace


def summed_after(function: Callable[[Tensor], Tensor]) -> Traced:
    """Convolution, the function, a sum over channels: exact only where a cut channel is 0."""
    return trace(
        lambda net, x: net.last(function(net.first(x)).sum(1, keepdim=True)),
        (3, 4, 4),
        first=nn.Conv2d(3, 4, 1),
        last=nn.Conv2d(1, 2, 1),
    )


def two(function: Callable[[Tensor, Tensor], Tensor], a: int = 4, b: int = 4) -> Traced:
    """Two convolutions combined, and a reader."""
    return trace(
        lambda net, x: net.out(function(net.a(x), net.b(x))),
        (3, 4, 4),
        a=nn.Conv2d(3, a, 1),
        b=nn.Conv2d(3, b, 1),
        out=nn.Conv2d(max(a, b), 2, 1),
    )


@pytest.mark.parametrize(
    "function", [torch.add, torch.sub, torch.mul, torch.maximum, lambda a, b: torch.where(a > 0, a, b)]
)
def test_operands_of_one_size_are_coupled(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    traced = two(function)
    assert traced.along("a.weight", 0) == traced.along("b.weight", 0) == traced.along("out.weight", 1) == [0, 1, 2, 3]


@pytest.mark.parametrize("function", [torch.add, torch.mul])
def test_a_single_channel_couples_nothing(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    traced = two(function, b=1)
    assert traced.along("a.weight", 0) == traced.along("out.weight", 1) == [0, 1, 2, 3]
    assert traced.along("b.weight", 0) == [-1]


@pytest.mark.parametrize("function", [lambda a, b: a.type_as(b), lambda a, b: a.type_as(b[:, :1])])
@pytest.mark.parametrize("b", [4, 3])
def test_what_only_names_a_type_couples_nothing(function: Callable[[Tensor, Tensor], Tensor], b: int) -> None:
    traced = two(function, b=b)
    assert traced.along("a.weight", 0) == traced.along("out.weight", 1) == [0, 1, 2, 3]
    assert not set(traced.along("b.weight", 0)) & {0, 1, 2, 3}


def test_adding_the_input_pins() -> None:
    traced = trace(lambda net, x: net.out(net.a(x) + x), (3, 4, 4), a=nn.Conv2d(3, 3, 1), out=nn.Conv2d(3, 2, 1))
    assert traced.along("a.weight", 0) == [-1] * 3
    assert traced.reason("a.weight") == "input of the network"


def test_a_full_size_operand_without_units_pins() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(1, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.a(x) * torch.arange(4.0))

    traced = trace(Table(), (1,))
    assert traced.along("a.weight", 0) == [-1] * 4
    assert traced.reason("a.weight") == "is combined with a value that has no units along this dimension"


@pytest.mark.parametrize(
    "function",
    [torch.relu, torch.tanh, F.gelu, F.silu, F.hardswish, torch.abs, torch.neg, lambda x: x * 3, lambda x: x / 2,
     lambda x: x**2, lambda x: x.clamp(-1, 1), lambda x: F.leaky_relu(x, 0.1), lambda x: F.dropout(x, 0.5, False),
     lambda x: x * x.sigmoid(), lambda x: x.float(), lambda x: x.contiguous()],
)  # fmt: skip
def test_what_keeps_zero_may_be_summed(function: Callable[[Tensor], Tensor]) -> None:
    assert summed_after(function).along("first.weight", 0) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "function",
    [torch.sigmoid, torch.exp, torch.cos, lambda x: x + 1, lambda x: 1 - x, lambda x: x.clamp(1, 2), F.softplus,
     lambda x: x.sigmoid() * 2, F.hardsigmoid, torch.ones_like, lambda x: x**0, lambda x: x.masked_fill(x > 0, 5.0)],
)  # fmt: skip
def test_what_loses_zero_may_not_be_summed(function: Callable[[Tensor], Tensor]) -> None:
    traced = summed_after(function)
    assert traced.along("first.weight", 0) == [-1] * 4
    assert "a sum over 4 positions" in traced.reason("first.weight")


def test_what_is_not_zero_is_still_a_unit_for_the_next_weight() -> None:
    traced = trace(lambda net, x: net.b(net.a(x).sigmoid() + 2), (3, 4, 4), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1))
    assert traced.along("a.weight", 0) == traced.along("b.weight", 1) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda a, b: a / b, "division by of a removed position would not be finite"),
        (lambda a, b: a + torch.log(b), "log of a removed position would not be finite"),
        (lambda a, b: a + b.rsqrt(), "rsqrt of a removed position would not be finite"),
    ],
)
def test_what_is_infinite_at_zero_pins(function: Callable[[Tensor, Tensor], Tensor], reason: str) -> None:
    traced = two(function)
    assert traced.along("b.weight", 0) == [-1] * 4
    assert traced.reason("b.weight") == reason


def test_bare_parameters_get_units_on_first_use() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
            self.scale, self.position = nn.Parameter(torch.ones(4, 1, 1)), nn.Parameter(torch.ones(1, 4, 4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.a(x) * self.scale + self.position)

    traced = trace(Scaled(), (3, 4, 4))
    assert traced.along("scale", 0) == traced.along("position", 1) == traced.along("a.weight", 0) == [0, 1, 2, 3]


def test_batch_norm_is_part_of_its_channels_with_or_without_an_affine_part() -> None:
    layers = {"a": nn.Conv2d(3, 4, 1), "out": nn.Conv2d(4, 2, 1)}
    affine = trace(lambda net, x: net.out(net.norm(net.a(x))), (3, 4, 4), norm=nn.BatchNorm2d(4), **layers)
    plain = trace(lambda net, x: net.out(net.norm(net.a(x))), (3, 4, 4), norm=nn.BatchNorm2d(4, affine=False), **layers)
    for traced in (affine, plain):
        assert traced.along("norm.running_mean", 0) == traced.along("a.weight", 0) == [0, 1, 2, 3]


@pytest.mark.parametrize(("affine", "free"), [(True, True), (False, False)])
def test_only_an_affine_batch_norm_is_zero_where_it_was_cut(affine: bool, free: bool) -> None:
    traced = trace(
        lambda net, x: net.out(net.norm(net.a(x)).sum(1, keepdim=True)),
        (3, 4, 4),
        a=nn.Conv2d(3, 4, 1),
        norm=nn.BatchNorm2d(4, affine=affine),
        out=nn.Conv2d(1, 2, 1),
    )
    assert (traced.units.n_units == 4) is free


def test_prelu_slopes_belong_to_the_channels() -> None:
    traced = trace(
        lambda net, x: net.out(net.act(net.a(x))),
        (3, 4, 4), a=nn.Conv2d(3, 4, 1), act=nn.PReLU(4), out=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    assert traced.along("act.weight", 0) == traced.along("a.weight", 0) == [0, 1, 2, 3]
