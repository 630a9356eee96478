"""Axis rules of operators that move data: offsets, splits, shuffles, padding, and what cannot stay dense."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.axes import Value
from tests.axes.tracing import Traced, trace


def moved(function: Callable[[Tensor], Tensor], width: int = 6, out: int = 6, side: int = 4) -> Traced:
    """Convolution, the function, convolution: what the second one's channels are."""
    return trace(
        lambda net, x: net.last(function(net.first(x))),
        (3, side, side),
        first=nn.Conv2d(3, width, 1),
        last=nn.Conv2d(out, 2, 1),
    )


def test_concatenation_offsets_follow_the_parts() -> None:
    traced = trace(
        lambda net, x: net.out(torch.cat((net.a(x), net.b(x), net.a(x)), 1)),
        (3, 4, 4),
        a=nn.Conv2d(3, 2, 1),
        b=nn.Conv2d(3, 3, 1),
        out=nn.Conv2d(7, 2, 1),
    )
    assert traced.along("a.weight", 0) == [0, 1] and traced.along("b.weight", 0) == [2, 3, 4]
    assert traced.along("out.weight", 1) == [0, 1, 2, 3, 4, 0, 1]


def test_concatenation_with_the_input_pins_only_the_inputs_part() -> None:
    traced = trace(
        lambda net, x: net.out(torch.cat((x, net.a(x)), 1)), (3, 4, 4), a=nn.Conv2d(3, 2, 1), out=nn.Conv2d(5, 2, 1)
    )
    assert traced.along("out.weight", 1) == [-1, -1, -1, 0, 1]


def test_concatenation_along_space_unites_channels() -> None:
    traced = trace(
        lambda net, x: net.out(torch.cat((net.a(x), net.b(x)), 2)),
        (3, 4, 4),
        a=nn.Conv2d(3, 2, 1),
        b=nn.Conv2d(3, 2, 1),
        out=nn.Conv2d(2, 2, 1),
    )
    assert traced.along("a.weight", 0) == traced.along("b.weight", 0) == traced.along("out.weight", 1) == [0, 1]


def test_stacking_unites_what_is_stacked() -> None:
    traced = trace(
        lambda net, x: net.out(torch.stack((net.a(x), net.b(x)), 1).sum(1)),
        (3, 4, 4),
        a=nn.Conv2d(3, 2, 1),
        b=nn.Conv2d(3, 2, 1),
        out=nn.Conv2d(2, 2, 1),
    )
    assert traced.along("a.weight", 0) == traced.along("b.weight", 0) == [0, 1]


@pytest.mark.parametrize(
    ("function", "channels"),
    [
        (lambda x: x[:, 2:5], [2, 3, 4]),
        (lambda x: x.narrow(1, 1, 4), [1, 2, 3, 4]),
        (lambda x: x.chunk(2, 1)[1], [3, 4, 5]),
        (lambda x: x.split(4, 1)[0], [0, 1, 2, 3]),
        (lambda x: x.split((2, 4), 1)[1], [2, 3, 4, 5]),
        (lambda x: x.flip(1), [5, 4, 3, 2, 1, 0]),
        (lambda x: x.repeat(1, 2, 1, 1), [0, 1, 2, 3, 4, 5] * 2),
        (lambda x: x.repeat_interleave(2, 1), [u for u in range(6) for _ in range(2)]),
        (lambda x: x.transpose(1, 2).transpose(1, 2), [0, 1, 2, 3, 4, 5]),
        (lambda x: x.permute(0, 2, 3, 1).movedim(-1, 1), [0, 1, 2, 3, 4, 5]),
        (lambda x: x.unsqueeze(2).squeeze(2), [0, 1, 2, 3, 4, 5]),
        (lambda x: x[:, :, ::2, 1:], [0, 1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_units_of_the_reader(function: Callable[[Tensor], Tensor], channels: list[int]) -> None:
    traced = moved(function, out=len(channels))
    assert traced.along("first.weight", 0) == [0, 1, 2, 3, 4, 5]
    assert traced.along("last.weight", 1) == channels


def test_a_channel_shuffle_ties_the_groups_and_permutes() -> None:
    def shuffled(x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        return x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)

    by_hand, built_in = moved(shuffled), moved(lambda x: F.channel_shuffle(x, 2))
    for traced in (by_hand, built_in):
        assert traced.along("first.weight", 0) == [0, 1, 2, 0, 1, 2]
        assert traced.along("last.weight", 1) == [0, 0, 1, 1, 2, 2]


def test_a_pixel_shuffle_ties_the_channels_that_become_one() -> None:
    traced = moved(lambda x: F.pixel_shuffle(x, 2), width=8, out=2)
    assert traced.along("first.weight", 0) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert traced.along("last.weight", 1) == [0, 1]
    back = moved(lambda x: F.pixel_unshuffle(x, 2), width=2, out=8)
    assert back.along("last.weight", 1) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_padding_channels_makes_fresh_units() -> None:
    traced = trace(
        lambda net, x: net.out(F.pad(net.a(x), (0, 0, 0, 0, 1, 2)) + net.b(x)),
        (3, 4, 4),
        a=nn.Conv2d(3, 2, 1),
        b=nn.Conv2d(3, 5, 1),
        out=nn.Conv2d(5, 2, 1),
    )
    assert traced.along("out.weight", 1) == traced.along("b.weight", 0)
    a = traced.along("a.weight", 0)
    assert traced.along("b.weight", 0)[1:3] == a and len({*traced.along("b.weight", 0)}) == 5


@pytest.mark.parametrize(
    ("function", "out", "reason"),
    [
        (lambda x: x[:, ::2], 3, "a step above 1 takes some positions and leaves out others"),
        (lambda x: x.roll(1, 1), 6, "is rolled or unfolded"),
        (lambda x: x[:, :1], 1, "a single position is taken out of the dimension"),
        (lambda x: x[:, torch.tensor([4, 0])], 2, "positions are chosen by another tensor"),
        (lambda x: F.pad(x.flatten(2).transpose(1, 2), (1, 1), "reflect").transpose(1, 2).unflatten(2, (4, 4)),
         8, "is padded with copies of itself"),
    ],
)  # fmt: skip
def test_what_cannot_stay_dense_pins_with_its_reason(
    function: Callable[[Tensor], Tensor], out: int, reason: str
) -> None:
    traced = moved(function, out=out)
    assert set(traced.along("first.weight", 0)) == {-1} or traced.along("first.weight", 0)[0] == -1
    assert traced.reason("first.weight") == reason


def test_rolling_space_is_harmless() -> None:
    assert moved(lambda x: x.roll((1, 1), (2, 3))).along("last.weight", 1) == [0, 1, 2, 3, 4, 5]


def test_heads_of_a_view_are_tied_per_position() -> None:
    traced = trace(
        lambda net, x: net.out(net.a(x).unflatten(2, (2, 3)).transpose(1, 2).transpose(1, 2).flatten(2)),
        (5, 3),
        a=nn.Linear(3, 6),
        out=nn.Linear(6, 2),
    )
    assert traced.along("a.weight", 0) == traced.along("out.weight", 1) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("pick", [lambda x, i: x.gather(2, i), lambda x, i: torch.take_along_dim(x, i, 2)])
def test_what_is_fetched_by_computed_places_goes_with_the_places(pick: Callable[[Tensor, Tensor], Tensor]) -> None:
    """An index without some channels would fetch from others, so both lose the same."""
    traced = trace(
        lambda net, x: net.last(pick(net.first(x), net.order(x).argmax(2, keepdim=True))),
        (3, 4, 4),
        first=nn.Conv2d(3, 6, 1),
        order=nn.Conv2d(3, 6, 1),
        last=nn.Conv2d(6, 2, 1),
    )
    first, order = traced.along("first.weight", 0), traced.along("order.weight", 0)
    assert first == order == traced.along("last.weight", 1) and len({*first} - {-1}) == 6


def test_what_varies_elsewhere_passes_a_shuffle_of_channels() -> None:
    """A map of places that has one channel of its own is not asked whether that is a multiple of the groups."""
    traced = trace(
        lambda net, x: net.end(F.channel_shuffle(net.places.expand(1, 6, 5) * net.scale, 3)[0].sum(0)) + x.sum(),
        (3,), places=nn.Parameter(torch.randn(1, 1, 5)), scale=nn.Parameter(torch.randn(6, 1)), end=nn.Linear(5, 2),
    )  # fmt: skip
    assert traced.along("places", 2) == traced.along("end.weight", 1)
    shuffled = next(v for n, v in traced.units.walk.values.items() if "shuffle" in n)
    assert isinstance(shuffled, Value) and {label.dims for label in shuffled.labels} >= {(2,)}
