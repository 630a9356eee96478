"""Axis rules of operators that multiply and sum, each on a tiny network with units counted by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from compressor.asking import WalkOptions
from compressor.axes import find_units
from tests.axes.tracing import Traced, trace


def between(middle: nn.Module, *, width: int = 4, out: int = 4) -> Traced:
    """1x1 convolution, the module at hand, 1x1 convolution."""
    return trace(
        lambda net, x: net.last(net.middle(net.first(x))),
        (3, 6, 6),
        first=nn.Conv2d(3, width, 1),
        middle=middle,
        last=nn.Conv2d(out, 2, 1),
    )


def test_a_convolution_has_an_input_and_an_output_width() -> None:
    traced = between(nn.Conv2d(4, 6, 3), out=6)
    assert traced.along("first.weight", 0) == traced.along("middle.weight", 1) == [0, 1, 2, 3]
    assert traced.along("middle.weight", 0) == traced.along("middle.bias", 0) == [4, 5, 6, 7, 8, 9]


def test_grouped_convolutions_tie_offsets() -> None:
    traced = between(nn.Conv2d(4, 6, 3, groups=2), out=6)
    assert traced.along("first.weight", 0) == [0, 1, 0, 1]
    assert traced.along("middle.weight", 1) == [0, 1]
    assert traced.along("middle.weight", 0) == traced.along("last.weight", 1) == [2, 3, 4, 2, 3, 4]


def test_depthwise_convolutions_make_filter_and_channel_one_unit() -> None:
    traced = between(nn.Conv2d(4, 4, 3, groups=4))
    assert traced.along("first.weight", 0) == traced.along("middle.weight", 0) == [0, 1, 2, 3]
    assert traced.along("middle.bias", 0) == traced.along("last.weight", 1) == [0, 1, 2, 3]


def test_depthwise_with_a_multiplier_takes_all_filters_of_its_channel() -> None:
    traced = between(nn.Conv2d(4, 8, 3, groups=4), out=8)
    assert traced.along("middle.weight", 0) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_one_and_three_dimensional_convolutions() -> None:
    for make, shape in ((nn.Conv1d, (3, 9)), (nn.Conv3d, (3, 5, 5, 5))):
        traced = trace(lambda net, x: net.b(net.a(x)), shape, a=make(3, 4, 3), b=make(4, 2, 1))
        assert traced.along("a.weight", 0) == traced.along("b.weight", 1) == [0, 1, 2, 3]


def test_transposed_convolutions_have_their_filters_in_dimension_1() -> None:
    traced = between(nn.ConvTranspose2d(4, 6, 2, 2), out=6)
    assert traced.along("middle.weight", 0) == traced.along("first.weight", 0) == [0, 1, 2, 3]
    assert traced.along("middle.weight", 1) == traced.along("middle.bias", 0) == [4, 5, 6, 7, 8, 9]


def test_a_convolution_named_padding_same_has_the_same_rule() -> None:
    traced = between(nn.Conv2d(4, 4, 3, padding="same"))
    assert traced.along("middle.weight", 1) == [0, 1, 2, 3]


def test_linear_layers_over_tokens() -> None:
    traced = trace(lambda net, x: net.b(net.a(x).relu()), (5, 3), a=nn.Linear(3, 4), b=nn.Linear(4, 2, bias=False))
    assert traced.along("a.weight", 0) == traced.along("a.bias", 0) == traced.along("b.weight", 1) == [0, 1, 2, 3]
    assert traced.along("a.weight", 1) == [-1, -1, -1]


def test_matrix_products_unite_the_contracted_width_only() -> None:
    traced = trace(
        lambda net, x: net.out(net.q(x) @ net.k(x).transpose(1, 2)),
        (5, 3),
        q=nn.Linear(3, 4, bias=False),
        k=nn.Linear(3, 4, bias=False),
        out=nn.Linear(5, 2),
    )
    assert traced.along("q.weight", 0) == traced.along("k.weight", 0) == [0, 1, 2, 3]
    assert traced.along("out.weight", 1) == [-1] * 5


def test_a_product_over_a_width_that_is_not_zero_pins_it() -> None:
    traced = trace(
        lambda net, x: net.out((net.q(x) + 1).sigmoid() @ (net.k(x) + 1).transpose(1, 2)),
        (5, 3),
        q=nn.Linear(3, 4),
        k=nn.Linear(3, 4),
        out=nn.Linear(5, 2),
    )
    assert traced.along("q.weight", 0) == [-1] * 4
    assert traced.reason("q.weight") == "is summed over where a removed position would not be 0"


def test_einsum_letters_are_united_and_what_is_not_understood_is_pinned() -> None:
    layers = {"q": nn.Linear(3, 4, bias=False), "k": nn.Linear(3, 4, bias=False), "out": nn.Linear(5, 2)}
    traced = trace(lambda net, x: net.out(torch.einsum("nsd,ntd->nst", net.q(x), net.k(x))), (5, 3), **layers)
    assert traced.along("q.weight", 0) == traced.along("k.weight", 0) == [0, 1, 2, 3]
    ellipsis = trace(lambda net, x: net.out(torch.einsum("...sd,...td->...st", net.q(x), net.k(x))), (5, 3), **layers)
    assert ellipsis.units.n_units in (0, 4)  # pinned, or understood: never half of it


def test_attention_unites_queries_with_keys_and_passes_values() -> None:
    traced = trace(
        lambda net, x: net.out(F.scaled_dot_product_attention(net.q(x), net.k(x), net.v(x))),
        (5, 3),
        q=nn.Linear(3, 4),
        k=nn.Linear(3, 4),
        v=nn.Linear(3, 6),
        out=nn.Linear(6, 2),
    )
    assert traced.along("q.weight", 0) == traced.along("k.bias", 0) == [0, 1, 2, 3]
    assert traced.along("v.weight", 0) == traced.along("out.weight", 1) == [4, 5, 6, 7, 8, 9]


def test_an_added_matrix_is_united_with_the_product() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.weight = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(3, 4))
            self.out = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.addmm(self.bias, x, self.weight))

    traced = trace(Added(), (3,))
    assert traced.along("bias", 0) == traced.along("weight", 1) == traced.along("out.weight", 1) == [0, 1, 2, 3]


def test_a_transposed_depthwise_convolution_takes_all_filters_of_its_channel() -> None:
    traced = between(nn.ConvTranspose2d(4, 8, 3, groups=4), out=8)
    assert traced.along("first.weight", 0) == traced.along("middle.weight", 0) == [0, 1, 2, 3]
    assert traced.along("middle.bias", 0) == traced.along("last.weight", 1) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_filters_or_channels_that_nothing_is_known_of_keep_what_meets_them() -> None:
    """Out of an operator without a rule comes a value without ids."""
    unknown = torch.linalg.matrix_exp
    for convolve in (F.conv_transpose2d, F.conv2d):
        traced = trace(
            lambda net, x, convolve=convolve: net.last(convolve(net.first(x), unknown(net.w), groups=4)),
            (3, 6, 6), first=nn.Conv2d(3, 4, 1), w=nn.Parameter(torch.randn(4, 1, 3, 3)), last=nn.Conv2d(4, 2, 1),
        )  # fmt: skip
        assert traced.along("first.weight", 0) == traced.along("last.weight", 1) == [-1] * 4
    for middle in (nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 4, 3, groups=4)):
        traced = trace(
            lambda net, x: net.last(net.middle(unknown(net.first(x)))),
            (3, 6, 6), first=nn.Conv2d(3, 4, 1), middle=middle, last=nn.Conv2d(4, 2, 1),
        )  # fmt: skip
        assert traced.along("middle.weight", 0) == [-1] * 4


def test_heads_of_queries_that_share_one_key_are_free() -> None:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        q = net.q(x).unflatten(-1, (4, 2)).transpose(1, 2)
        k, v = (layer(x).unflatten(-1, (1, 2)).transpose(1, 2) for layer in (net.k, net.v))
        return net.out(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))

    traced = trace(forward, (5, 3), q=nn.Linear(3, 8), k=nn.Linear(3, 2), v=nn.Linear(3, 2), out=nn.Linear(8, 2))
    units = find_units(traced.program, WalkOptions(keep_heads=True))
    assert units.axes["q.weight", 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] == units.axes["out.weight", 1].tolist()
    assert not traced.reason("q.weight") and units.axes["k.weight", 0].tolist() == [-1, -1]
