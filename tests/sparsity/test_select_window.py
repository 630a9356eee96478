"""N:M: validity of every window, the projection by brute force, and layers that it does not fit."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.axes import UnitMap
from compressor.errors import PatternError, UsageError
from compressor.program import Program
from compressor.sparsity import make_selector
from compressor.sparsity.select_window import keep_windows
from tests.axes.tracing import trace
from tests.choices import choice_of

Bundled = Callable[[str], tuple[Program, UnitMap]]


def windows(mask: Tensor, dim: int, m: int) -> Tensor:
    return mask.movedim(dim, -1).unflatten(-1, (-1, m)).sum(dim=-1)


@given(st.lists(st.integers(0, 3), min_size=8, max_size=8), st.sampled_from([(2, 4), (1, 4), (3, 8), (1, 2)]))
def test_it_is_the_euclidean_projection_and_ties_go_by_place(values: list[int], window: tuple[int, int]) -> None:
    n, m = window
    magnitudes = torch.tensor(values, dtype=torch.float32)
    keep = keep_windows(magnitudes, 0, n, m)
    for start in range(0, 8, m):
        own, mask = magnitudes[start : start + m], keep[start : start + m]
        assert int(mask.sum()) == n
        best = max(itertools.combinations(range(m), n), key=lambda chosen: float(own[list(chosen)].square().sum()))
        assert mask.nonzero().flatten().tolist() == sorted(best), "max keeps the first of equal choices"


def test_every_window_along_the_channels_keeps_n_of_m(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    selector = make_selector(program, units, choice_of("2:4"))
    selection = selector.select(program.parameters, 2.0)
    assert selection.ratio == 2.0 and selection.keep is None
    assert selector.notes == ("left dense: conv1 (2:4 needs input channels divisible by 4, got 3)",)
    assert "conv1.weight" not in selection.masks and len(selection.masks) == 19
    for name, mask in selection.masks.items():
        assert (windows(mask, 1, 4) == 2).all(), name
    assert selector.kept_cost(selection.masks, torch.zeros(0).bool().numpy()) == selector.dense / 2


def test_twin_along_another_dimension_the_windows_are_not_full(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    masks = make_selector(program, units, choice_of("2:4")).select(program.parameters, 2.0).masks
    assert any((windows(mask, 0, 4) != 2).any() for mask in masks.values())


def test_a_named_layer_must_fit(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    with pytest.raises(PatternError, match=r"^conv1: 2:4 needs input channels divisible by 4, got 3; skip it with --k"):
        make_selector(program, units, choice_of("2:4", scope=("conv1", "layer1*")))
    spared = make_selector(program, units, choice_of("2:4", scope=("conv1", "layer1*"), keep=("conv1",)))
    assert spared.notes == ()
    with pytest.raises(PatternError, match="--pattern 2:4: no layer in scope has input channels it fits"):
        traced = trace(lambda net, x: net.a(x), (3,), a=nn.Linear(3, 4))
        make_selector(traced.program, traced.units, choice_of("2:4"))


def test_another_ratio_is_refused(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    with pytest.raises(UsageError, match=r"--ratio 3\.00x: 2:4 means 2\.00x of the layers it fits; leave --ratio out"):
        make_selector(program, units, choice_of("2:4")).select(program.parameters, 3.0)


@pytest.mark.parametrize(("pattern", "ratio"), [("2:4", 2.0), ("1:4", 4.0)])
def test_what_is_cut_already_is_the_first_to_go(bundled: Bundled, pattern: str, ratio: float) -> None:
    program, units = bundled("lenet5")
    before = {"conv2.weight": torch.ones(50, 20, 5, 5, dtype=torch.bool)}
    before["conv2.weight"][:, :3] = False
    selector = make_selector(program, units, choice_of(pattern, of="macs", method="random", ratio=ratio))
    masks = selector.select(program.parameters, ratio, before).masks
    assert not (masks["conv2.weight"] & ~before["conv2.weight"]).any()
    kept = windows(masks["conv2.weight"], 1, 4)
    assert (kept[..., 1:] == 4 / ratio).all() and (kept[..., 0] == 1).all()
