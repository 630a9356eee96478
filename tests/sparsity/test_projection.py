"""The largest entries without sorting, against sorting; tallies against LAMP written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressor.sparsity.projection import bin_magnitudes, keep_largest, tally
from compressor.sparsity.scores import normalise_lamp

# A few values, many of them equal, some of them in one bin without being equal, some of them too small for float32.
MAGNITUDES = st.lists(
    st.sampled_from((0.0, 1e-45, 1e-30, 0.5, 1.0, 1.0 + 1e-7, 1.001, 2.0)) | st.floats(0, 4, width=32),
    min_size=1,
    max_size=40,
)


def by_sorting(magnitudes: Tensor, n: int) -> Tensor:
    keep = torch.zeros(len(magnitudes), dtype=torch.bool)
    keep[torch.sort(magnitudes, descending=True, stable=True).indices[:n]] = True
    return keep


@given(MAGNITUDES, st.data())
def test_it_keeps_what_a_stable_sort_would_keep(values: list[float], data: st.DataObject) -> None:
    magnitudes = torch.tensor(values, dtype=torch.float32)
    n = data.draw(st.integers(0, len(values)))
    assert torch.equal(keep_largest(bin_magnitudes(magnitudes), n), by_sorting(magnitudes, n))


@given(MAGNITUDES, st.data())
def test_what_is_gone_is_never_kept(values: list[float], data: st.DataObject) -> None:
    magnitudes = torch.tensor(values, dtype=torch.float32)
    gone = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    n = data.draw(st.integers(0, len(values)))
    keep = keep_largest(bin_magnitudes(magnitudes, gone), n)
    n_alive = int((~gone).sum())
    assert int(keep.sum()) == min(n, n_alive) and not (keep & gone).any()
    alive = (~gone).nonzero().flatten()
    assert torch.equal(keep[alive], by_sorting(magnitudes[alive], min(n, n_alive)))


def test_it_is_the_euclidean_projection() -> None:
    weights = torch.randn(9, generator=torch.Generator().manual_seed(0))
    for n in range(10):
        kept = keep_largest(bin_magnitudes(weights.abs()), n)
        distance = float(weights[~kept].square().sum())
        others = (list(c) for c in itertools.combinations(range(9), 9 - n))
        assert distance == pytest.approx(min(float(weights[cut].square().sum()) for cut in others))


def test_equal_entries_go_by_their_place() -> None:
    assert keep_largest(bin_magnitudes(torch.ones(1000)), 400).nonzero().flatten().tolist() == list(range(400))


def test_twin_the_bins_alone_do_not_tell_neighbours_apart() -> None:
    magnitudes = torch.tensor([1.0, 1.0 + 1e-4])
    binned = bin_magnitudes(magnitudes)
    assert binned.bins[0] == binned.bins[1]
    assert keep_largest(binned, 1).tolist() == [False, True]


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_a_tally_counts_what_lamp_scores_leave(power: float) -> None:
    magnitudes = torch.rand(4000, generator=torch.Generator().manual_seed(1)) ** power
    scores = normalise_lamp(magnitudes.double().square().numpy())
    counted = tally(bin_magnitudes(magnitudes))
    assert counted.n == 4000
    for x in (1.0, 3.0, 40.0, 700.0, 5e4):
        exact = int((scores >= 1 / x).sum())
        assert counted.count(x) == pytest.approx(exact, rel=0.02, abs=2), x


def test_a_tally_never_falls_and_leaves_zeros_for_last() -> None:
    counted = tally(bin_magnitudes(torch.tensor([0.0, 0.0, 1.0, 3.0])))
    counts = [counted.count(x) for x in (0.5, 1.0, 5.0, 1e6, 1e300)]
    assert counts == sorted(counts) and counts[-1] == 2 and counted.n == 4
    assert tally(bin_magnitudes(torch.zeros(3))).count(1e9) == 0


@given(st.floats(2.0**-20, 2.0**20), st.floats(2.0**-20, 2.0**20))
def test_a_tally_is_within_two_per_mille_of_each_magnitude(one: float, other: float) -> None:
    small, large = sorted((one, other))
    if small < large * 0.99:
        rests = tally(bin_magnitudes(torch.tensor([small, large]))).rests
        assert rests[0] == 0 and rests[1] == pytest.approx((large / small) ** 2, rel=0.0082)


def test_what_is_next_to_nothing_is_no_zero() -> None:
    assert tally(bin_magnitudes(torch.full((3,), 6e-41))).count(3.0) == 3
    assert tally(bin_magnitudes(torch.zeros(3))).count(1e30) == 0


def test_gone_entries_are_no_part_of_the_tally() -> None:
    gone = torch.tensor([True, False, True, False])
    counted = tally(bin_magnitudes(torch.tensor([5.0, 1.0, 0.0, 2.0]), gone))
    assert counted.n == 2 and np.isfinite(counted.rests).all()
