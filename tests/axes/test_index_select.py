"""The axis rule of `index_select`: the index gets shorter, its source stays."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.axes.tracing import Traced, trace


class Selecting(nn.Module):
    def __init__(self, index: Tensor, dim: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(len(index) if dim == 1 else 6, 4, 1)
        self.register_buffer("index", index)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).index_select(self.dim, self.index))


def units_of(index: list[int], dim: int = 1) -> Traced:
    return trace(Selecting(torch.tensor(index), dim), (3, 5, 5))


def test_entries_of_the_index_go_with_their_reader() -> None:
    traced = units_of([5, 0, 0, 2])
    assert traced.along("index", 0) == traced.along("b.weight", 1) == [0, 1, 2, 3]


def test_the_source_is_pinned_with_the_reason() -> None:
    traced = units_of([5, 0, 0, 2])
    assert traced.along("a.weight", 0) == [-1] * 6
    assert traced.reason("a.weight") == "positions are chosen by another tensor"


def test_a_selection_along_space_leaves_channels_alone() -> None:
    traced = units_of([4, 1, 0], dim=2)
    assert traced.along("a.weight", 0) == traced.along("b.weight", 1) == list(range(6))
    assert -1 in traced.along("index", 0)
