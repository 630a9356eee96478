"""Labels: reshapes of ids against numpy's own reshape, and the dimensions along which nothing varies."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from compressor.axes import find_units
from compressor.axes.labels import Label, Value, factor, from_array, reshape_label
from compressor.program import InputSpec, capture

sizes = st.lists(st.sampled_from((1, 2, 3, 4, 6)), min_size=1, max_size=4)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two shapes with equal products: factors are grouped anew."""
    before = draw(sizes)
    primes = [p for size in before for p in {1: [1], 2: [2], 3: [3], 4: [2, 2], 6: [2, 3]}[size]]
    after: list[int] = [1]
    for p in primes:
        if draw(st.booleans()):
            after.append(p)
        else:
            after[-1] *= p
    if draw(st.integers(0, 4)) == 0:  # no elements: the sizes beside the 0 may be any
        for shape in (before, after):
            shape[draw(st.integers(0, len(shape) - 1))] = 0
    return before, after


@given(reshapes())
def test_factored_runs_have_equal_products_and_cover_every_dimension(shapes: tuple[list[int], list[int]]) -> None:
    before, after = shapes
    groups = factor(before, after)
    assert [d for run, _ in groups for d in run] == list(range(len(before)))
    assert [d for _, run in groups for d in run] == list(range(len(after)))
    for run_before, run_after in groups:
        assert math.prod(before[d] for d in run_before) == math.prod(after[d] for d in run_after)


def test_factored_runs_are_as_short_as_they_can_be() -> None:
    assert factor((3, 8, 6), (3, 48)) == [(range(0, 1), range(0, 1)), (range(1, 3), range(1, 2))]
    assert factor((2, 12), (2, 3, 4)) == [(range(0, 1), range(0, 1)), (range(1, 2), range(1, 3))]


@given(reshapes(), st.data())
def test_reshaped_ids_are_what_numpy_makes_of_the_full_array(
    shapes: tuple[list[int], list[int]], data: st.DataObject
) -> None:
    before, after = shapes
    dims = tuple(d for d in range(len(before)) if before[d] != 1 and data.draw(st.booleans()))
    assume(dims)
    ids = np.arange(math.prod(before[d] for d in dims)).reshape([before[d] for d in dims])
    label = Label(dims, ids)
    full = np.broadcast_to(label.at_rank(len(before)), before).reshape(after)
    assert np.array_equal(np.broadcast_to(reshape_label(label, before, after), after), full)


def test_a_reshape_expands_only_what_the_label_touches() -> None:
    label = Label((1,), np.arange(6))
    assert reshape_label(label, (64, 6, 100), (64, 2, 3, 100)).shape == (1, 2, 3, 1)


def test_views_of_tensors_without_elements_are_walked_through() -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
            self.nothing = nn.Parameter(torch.zeros(0, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nothing = self.nothing.ravel().sum() + self.nothing.view(2, 2, 0).sum()
            return self.out(self.conv(x)).mean((2, 3)) + nothing

    assert find_units(capture(Empty(), [InputSpec("x", (None, 3, 6, 6))])).n_units == 4


@given(st.lists(st.booleans(), min_size=1, max_size=4))
def test_from_array_drops_exactly_the_dimensions_that_do_not_vary(varies: list[bool]) -> None:
    shape = [3 if v else 1 for v in varies]
    ids = np.arange(math.prod(shape)).reshape(shape)
    label = from_array(np.broadcast_to(ids, [3] * len(varies)), True)
    if not any(varies):
        assert label is None
        return
    assert label is not None
    assert label.dims == tuple(d for d, v in enumerate(varies) if v)
    assert np.array_equal(label.at_rank(len(varies)), ids)


def test_values_sort_their_labels_by_dimension() -> None:
    rows, columns = Label((1,), np.arange(3)), Label((2,), np.arange(4), zero=False)
    value = Value((2, 3, 4), (rows, columns))
    assert value.along(1) == (rows,) and value.apart_from([1]) == (columns,)
    assert value.normal_dim(-1) == 2 and rows.shifted(2).dims == (3,)
    assert columns.with_zero(False) is columns and columns.with_zero(True).zero
