"""Axis rules of reductions, poolings and softmax: what is exact without a removed position, and what pins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.axes.tracing import Traced, trace


def gated(function: Callable[[Tensor], Tensor]) -> Traced:
    """Channels times a reduction of themselves over channels."""
    return trace(
        lambda net, x: net.out((y := net.a(x)) * function(y)),
        (3, 4, 4),
        a=nn.Conv2d(3, 4, 1),
        out=nn.Conv2d(4, 2, 1),
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(1, keepdim=True),
        lambda x: x.sum((1, 2, 3), keepdim=True),
        lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True),
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x.amax((2, 3), keepdim=True),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.max_pool2d(x, 3, 1, 1),
        lambda x: x.softmax(2),
        lambda x: x.flatten(2).mean(2)[:, :, None, None],
    ],
)
def test_exact_without_what_is_removed(function: Callable[[Tensor], Tensor]) -> None:
    assert gated(function).along("a.weight", 0) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.mean(1, keepdim=True), "passes a mean over 4 positions"),
        (lambda x: x.amax(1, keepdim=True), "passes a maximum over 4 positions"),
        (lambda x: x.var(1, keepdim=True), "passes a variance over 4 positions"),
        (lambda x: x.max(1, keepdim=True).values, "passes a maximum over 4 positions"),
        (lambda x: x.sigmoid().sum(1, keepdim=True), "passes a sum over 4 positions"),
        (lambda x: x.softmax(1), "softmax over this dimension"),
        (lambda x: x.cumsum(1), "cumsum over this dimension"),
        (lambda x: F.layer_norm(x.movedim(1, -1), (4,)).movedim(-1, 1), "normalised over 4 features"),
        (lambda x: F.group_norm(x, 1), "normalised over 4 channels"),
    ],
)
def test_pinned_with_its_reason(function: Callable[[Tensor], Tensor], reason: str) -> None:
    traced = gated(function)
    assert traced.along("a.weight", 0) == [-1] * 4
    assert reason in traced.reason("a.weight")


def test_labels_move_up_where_a_dimension_goes() -> None:
    traced = trace(lambda net, x: net.out(net.a(x).mean((2, 3))), (3, 4, 4), a=nn.Conv2d(3, 4, 1), out=nn.Linear(4, 2))
    assert traced.along("out.weight", 1) == [0, 1, 2, 3]


def test_a_maximum_with_its_indices_passes_both() -> None:
    traced = trace(
        lambda net, x: net.out(net.a(x).max(2).values), (3, 4, 4), a=nn.Conv2d(3, 4, 1), out=nn.Conv1d(4, 2, 1)
    )
    assert traced.along("out.weight", 1) == [0, 1, 2, 3]


def test_poolings_pin_what_they_slide_along() -> None:
    traced = trace(lambda net, x: net.out(F.max_pool1d(net.a(x), 2)), (5, 3), a=nn.Linear(3, 4), out=nn.Linear(2, 2))
    assert traced.along("a.weight", 0) == [-1] * 4
    assert traced.reason("a.weight") == "a window slides along this dimension"


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_interpolation_passes_channels(mode: str) -> None:
    traced = trace(
        lambda net, x: net.out(F.interpolate(net.a(x), scale_factor=2.0, mode=mode)),
        (3, 4, 4), a=nn.Conv2d(3, 4, 1), out=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    assert traced.along("out.weight", 1) == [0, 1, 2, 3]


def test_instance_norm_over_space_passes_channels() -> None:
    traced = trace(
        lambda net, x: net.out(net.norm(net.a(x))),
        (3, 4, 4), a=nn.Conv2d(3, 4, 1), norm=nn.InstanceNorm2d(4, affine=True), out=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    assert traced.along("norm.weight", 0) == traced.along("out.weight", 1) == [0, 1, 2, 3]
