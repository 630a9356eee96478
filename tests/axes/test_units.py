"""The unit map of whole small networks, checked by hand."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.asking import WalkOptions
from compressor.axes import find_units
from compressor.axes.labels import Label, Value
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


def test_positions_stay_for_any_label_that_crosses_them_and_for_all_that_lie_along_them() -> None:
    traced = chain()
    units, keep = traced.units, traced.without(0, 1)
    ids = units.walk.axes["two.weight", 1]
    square = Value((2, 2), (Label((0, 1), ids.reshape(2, 2)),))
    assert units.kept_positions(keep, square, 0).tolist() == [False, True]
    assert units.kept_positions(keep, square, 1).tolist() == [True, True]
    line = Value((3, 4), (Label((1,), ids),))
    assert units.kept_positions(keep, line, 1).tolist() == [False, False, True, True]
    assert units.kept_positions(keep, line, 0).tolist() == [True] * 3
    turned = Value((4,), (Label((0,), ids), Label((0,), ids[::-1].copy())))
    assert not units.kept_positions(keep, turned, 0).any()


def test_widths_are_whole_axes_and_every_part_of_a_split() -> None:
    traced = trace(
        lambda net, x: [part.relu() for part in (net.left(net.first(x).chunk(2, 1)[0]), net.right(net.first(x)))],
        (3, 6, 6),
        first=nn.Conv2d(3, 4, 1),
        left=nn.Conv2d(2, 2, 1),
        right=nn.Conv2d(4, 2, 1),
    )
    assert {tuple(members.tolist()) for _, members in traced.units.widths} == {(0, 1, 2, 3), (0, 1), (2, 3)}
    places = dict((tuple(members.tolist()), place) for place, members in traced.units.widths)
    assert places[0, 1, 2, 3] == "first.weight, dimension 0" and places[0, 1] == "left.weight, dimension 1"


def test_heads_are_units_of_their_own_where_the_walk_keeps_them() -> None:
    traced = trace(
        lambda net, x: net.out(net.hidden(net.attend(x, net.q(x), net.k(x), net.v(x))).relu()),
        (5, 3),
        q=nn.Linear(3, 6),
        k=nn.Linear(3, 6),
        v=nn.Linear(3, 6),
        attend=Attention(),
        hidden=nn.Linear(6, 4),
        out=nn.Linear(4, 2),
    )
    assert not traced.units.heads.any()
    kept = find_units(traced.program, WalkOptions(keep_heads=True))
    heads = np.unique(kept.axes["q.weight", 0])
    assert kept.n_units == 2 + 4 and kept.heads.sum() == 2
    assert np.flatnonzero(kept.heads).tolist() == heads.tolist()
    assert not kept.heads[kept.axes["hidden.weight", 0]].any()


class Attention(nn.Module):
    """Two heads of width 3."""

    def forward(self, x: Tensor, *projected: Tensor) -> Tensor:
        query, key, value = (part.view(x.shape[0], 5, 2, 3).transpose(1, 2) for part in projected)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).reshape(x.shape[0], 5, 6)


def test_a_width_is_of_units_that_are_there_equally_often() -> None:
    """Of six channels two are read twice: the cost of a unit is that of any other of its width."""
    traced = trace(
        lambda net, x: net.two(torch.cat([(y := net.one(x)), y[:, :2]], 1)),
        (3, 6, 6), one=nn.Conv2d(3, 6, 3), two=nn.Conv2d(8, 5, 3),
    )  # fmt: skip
    assert traced.along("two.weight", 1) == [0, 1, 2, 3, 4, 5, 0, 1]
    assert traced.units.groups == ((0, 1), (2, 3, 4, 5))
