"""Masks and units: one way and back, and what half-cut units count as."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.axes import UnitMap
from compressor.program import Program
from compressor.sparsity import apply_masks, kept_units, mask_units, merge_masks
from tests.axes.tracing import trace

Bundled = Callable[[str], tuple[Program, UnitMap]]


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_masks_and_units_are_inverse(bundled: Bundled, name: str) -> None:
    program, units = bundled(name)

    @settings(max_examples=25, derandomize=True)
    @given(st.integers(0, 2**16), st.floats(0, 1))
    def round_trip(seed: int, rate: float) -> None:
        keep = np.random.default_rng(seed).random(units.n_units) >= rate
        masks = mask_units(program.module, units, keep)
        assert np.array_equal(kept_units(units, masks, program.parameters), keep)
        for parameter, mask in masks.items():
            assert not mask.all() and mask.shape == program.parameters[parameter].shape

    round_trip()


def test_a_unit_goes_only_when_all_of_its_slices_are_cut(bundled: Bundled) -> None:
    program, units = bundled("lenet5")
    keep = np.ones(units.n_units, dtype=bool)
    keep[units.axes["conv2.weight", 0][3]] = False
    masks = mask_units(program.module, units, keep)
    assert set(masks) == {"conv2.weight", "conv2.bias", "fc1.weight"}
    assert int((~masks["fc1.weight"]).sum()) == 16 * 500
    for spared in masks:
        partly = {name: mask for name, mask in masks.items() if name != spared}
        assert kept_units(units, partly, program.parameters).all(), spared
    masks["fc1.weight"][0, 3 * 16] = True
    assert kept_units(units, masks, program.parameters).all()


def test_no_masks_keep_everything(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    assert kept_units(units, {}, program.parameters).all()
    assert mask_units(program.module, units, np.ones(units.n_units, dtype=bool)) == {}


def test_a_unit_along_both_axes_of_one_weight_cuts_rows_and_columns() -> None:
    square = torch.nn.Conv2d(4, 4, 1)
    traced = trace(
        lambda net, x: net.out(net.twice(net.twice(net.first(x)))),
        (3, 4, 4),
        first=torch.nn.Conv2d(3, 4, 1),
        twice=square,
        out=torch.nn.Conv2d(4, 2, 1),
    )
    masks = mask_units(traced.program.module, traced.units, traced.without(1))
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[1], expected[:, 1] = False, False
    assert torch.equal(masks["twice.weight"][:, :, 0, 0], expected)


def test_merged_masks_cut_what_one_of_them_cuts() -> None:
    a = {"w": torch.tensor([True, False, True]), "v": torch.tensor([False])}
    b = {"w": torch.tensor([False, True, True])}
    merged = merge_masks(a, b)
    assert merged["w"].tolist() == [False, False, True] and merged["v"].tolist() == [False]
    assert a["w"].tolist() == [True, False, True]


def test_applied_masks_leave_zeros_and_nothing_else() -> None:
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    mask = torch.tensor([[True, False, True], [False, True, True]])
    apply_masks(module, {"weight": mask})
    assert torch.equal(module.weight, before * mask)
    module.weight.data.fill_(float("nan"))
    apply_masks(module, {"weight": mask})
    assert (module.weight.detach()[~mask] == 0).all(), "NaN times 0 is NaN"
