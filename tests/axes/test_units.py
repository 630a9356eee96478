"""The unit map of whole small networks, checked by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compressor.models import build
from tests.axes.tracing import Traced, trace


def chain() -> Traced:
    return trace(
        lambda net, x: net.two(net.norm(net.one(x)).relu()),
        (3, 6, 6),
        one=nn.Conv2d(3, 4, 3),
        norm=nn.BatchNorm2d(4),
        two=nn.Conv2d(4, 5, 3),
    )


def test_conv_norm_relu_conv_is_one_width() -> None:
    traced = chain()
    assert traced.units.n_units == 4
    for axis in (("one.weight", 0), ("one.bias", 0), ("norm.weight", 0), ("norm.running_var", 0), ("two.weight", 1)):
        assert traced.along(*axis) == [0, 1, 2, 3], axis
    assert traced.units.groups == ((0, 1, 2, 3),)
    assert set(traced.units.slices[0]) == {
        (f"norm.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")
    } | {("one.weight", 0), ("one.bias", 0), ("two.weight", 1)}


def test_what_is_pinned_says_why() -> None:
    traced = chain()
    assert traced.along("one.weight", 1) == [-1, -1, -1] and traced.along("two.weight", 0) == [-1] * 5
    assert traced.reason("one.weight", 1) == "input of the network"
    assert traced.reason("two.weight", 0) == "output of the network"
    assert traced.reason("one.weight", 2) == "kernel window"
    assert traced.reason("one.weight", 0) == ""


def test_flatten_gives_36_columns_to_each_channel() -> None:
    traced = trace(
        lambda net, x: net.fc(net.conv(x).flatten(1)), (1, 8, 8), conv=nn.Conv2d(1, 4, 3), fc=nn.Linear(4 * 36, 5)
    )
    assert traced.along("fc.weight", 1) == [unit for unit in range(4) for _ in range(36)]
    assert traced.units.groups == ((0, 1, 2, 3),)


def test_a_shared_layer_ties_its_input_to_its_output() -> None:
    traced = trace(
        lambda net, x: net.out(net.twice(net.twice(net.first(x)))),
        (3, 5, 5),
        first=nn.Conv2d(3, 4, 1),
        twice=nn.Conv2d(4, 4, 3, padding=1),
        out=nn.Conv2d(4, 2, 1),
    )
    assert traced.units.n_units == 4
    assert traced.along("twice.weight", 0) == traced.along("twice.weight", 1) == traced.along("out.weight", 1)


def test_two_ways_that_never_meet_are_two_widths() -> None:
    traced = trace(
        lambda net, x: (net.b(net.a(x)), net.d(net.c(x))),
        (3,), a=nn.Linear(3, 4), b=nn.Linear(4, 2), c=nn.Linear(3, 5), d=nn.Linear(5, 2),
    )  # fmt: skip
    assert [len(group) for group in traced.units.groups] == [4, 5]


def test_bundled_networks_have_their_known_units() -> None:
    def units(name: str, *shape: int) -> list[int]:
        return sorted(len(group) for group in trace(build(name, {}, seed=0).module, shape).units.groups)

    assert units("lenet-300-100", 1, 28, 28) == [100, 300]
    assert units("lenet5", 1, 28, 28) == [20, 50, 500]
    # Nine inner widths; the stages' streams overlap through the padded shortcuts: 16, 32 with 16 in the middle, 64.
    assert sum(units("resnet20", 3, 32, 32)) == 3 * (16 + 32 + 64) + 64


def test_kept_along_reads_pinned_indices_as_kept() -> None:
    traced = chain()
    keep = traced.without(1, 3)
    assert traced.units.kept_along(keep, "one.weight", 0).tolist() == [True, False, True, False]
    assert traced.units.kept_along(keep, "one.weight", 1).all()
    ids = traced.units.walk.axes["two.weight", 1].reshape(2, 2)
    assert traced.units.kept_ids(keep, ids).tolist() == [[True, False], [True, False]]
    assert traced.units.kept_along(np.ones(4, dtype=bool), "two.weight", 1).all()


def test_a_unit_that_touches_no_parameter_does_not_count() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.randn(6, 3))
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.fc.weight.t() + (self.table.t() @ self.table).sum()

    assert trace(Products(), (3,)).units.n_units == 0
