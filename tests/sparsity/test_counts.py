"""Sharing a budget over layers, against trying every number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import RatioError
from compressor.sparsity.counts import CountAt, global_counts, share_budget, uniform_counts
from compressor.sparsity.projection import bin_magnitudes, tally

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=5)


def curves(sizes: list[int], allocation: str) -> CountAt:
    random = torch.Generator().manual_seed(len(sizes))
    if allocation == "uniform":
        return uniform_counts(sizes)
    return global_counts([tally(bin_magnitudes(torch.rand(n, generator=random))) for n in sizes])


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@given(sizes=SIZES, data=st.data())
def test_equal_prices_use_the_budget_to_the_last(allocation: str, sizes: list[int], data: st.DataObject) -> None:
    budget = data.draw(st.integers(len(sizes), sum(sizes)))
    counts = share_budget(curves(sizes, allocation), [1.0] * len(sizes), budget)
    assert sum(counts) == budget
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@given(sizes=SIZES, data=st.data())
def test_nothing_that_still_fits_is_left_over(allocation: str, sizes: list[int], data: st.DataObject) -> None:
    prices = data.draw(st.lists(st.integers(1, 9).map(float), min_size=len(sizes), max_size=len(sizes)))
    most = sum(p * n for p, n in zip(prices, sizes, strict=True))
    budget = data.draw(st.floats(sum(prices), most))
    counts = share_budget(curves(sizes, allocation), prices, budget)
    spent = sum(p * n for p, n in zip(prices, counts, strict=True))
    assert spent <= budget * (1 + 1e-9)
    room = [price for price, count, size in zip(prices, counts, sizes, strict=True) if count < size]
    assert not room or spent + min(room) > budget


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_less_than_one_entry_of_each_layer_is_refused(allocation: str) -> None:
    with pytest.raises(RatioError, match=r"^$"):
        share_budget(curves([4, 4], allocation), [1.0, 2.0], 2.9)
    assert share_budget(curves([4, 4], allocation), [1.0, 2.0], 3.0) == [1, 1]


def test_global_spares_the_layer_whose_small_weights_carry_more() -> None:
    even, skewed = torch.full((100,), 1.0), torch.linspace(0, 1, 100) ** 8
    counts = share_budget(global_counts([tally(bin_magnitudes(m)) for m in (even, skewed)]), [1.0, 1.0], 100)
    assert counts[0] > 2 * counts[1]
    assert share_budget(uniform_counts([100, 100]), [1.0, 1.0], 100) == [50, 50]
