"""Group norms that lost whole groups, from pruning over the compact network to ONNX and back."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.asking import PruneSettings
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.exporting import export_onnx, export_pt2, export_python
from compressor.formats import load, save
from compressor.program import Program, arguments, capture, families
from compressor.pruning import prune
from compressor.sparsity import apply_masks, make_selector, mask_units
from tests.axes.attention_networks import difference, randomise
from tests.axes.group_networks import NETWORKS, Network, chain, conv
from tests.choices import choice_of

CUT = PruneSettings(ratio=1.5, of="macs", method="magnitude", round_to=1)


def captured(given: Network) -> Program:
    make, inputs = given
    return capture(randomise(make()), inputs)


@functools.cache
def network(name: str) -> Program:
    return captured(NETWORKS[name])


def exact(program: Program) -> Program:
    return program.replace(module=program.module.clone(torch.float64))


def n_groups(program: Program) -> list[int]:
    nodes = (node for node in program.module.graph.nodes if node.target in families.GROUP_NORM)
    return [arguments(node)["num_groups"] for node in nodes]


@pytest.mark.parametrize("name", NETWORKS)
def test_asked_is_got_and_compact_is_masked(name: str) -> None:
    masked, _ = prune(network(name), CUT)
    small, report = compact(masked, lowering="dense")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert report.dense_macs / report.compact_macs >= 1.5
    assert sum(n_groups(small)) < sum(n_groups(masked))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_onnx_file_has_the_same_units_and_the_small_one_the_same_answers(name: str, tmp_path: Path) -> None:
    """`export_onnx` compares with onnxruntime and raises when they differ."""
    program = network(name)
    export_onnx(program, tmp_path / "whole.onnx")
    whole = load(tmp_path / "whole.onnx")
    units, again = find_units(program), find_units(whole)
    assert sorted(map(len, units.groups)) == sorted(map(len, again.groups))
    small, report = compact(prune(whole, CUT)[0], lowering="dense")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    export_onnx(small, tmp_path / "small.onnx")
    read = load(tmp_path / "small.onnx")
    assert difference(exact(small), exact(read)) < 1e-5


WIDE = chain(conv(3, 48), nn.GroupNorm(8, 48), nn.ReLU(), conv(48, 48), nn.GroupNorm(24, 48), nn.ReLU(), conv(48, 2))


@pytest.mark.parametrize(("multiple", "steps"), [(1, (6, 2)), (4, (12, 4)), (12, (12, 12)), (16, (48, 16))])
def test_widths_are_counted_in_channels(multiple: int, steps: tuple[int, int]) -> None:
    """A unit is 6 channels, or 2; of 4 channels none is a multiple of 4 but 12 and 4."""
    program = captured(WIDE)
    units = find_units(program)
    for ratio in (1.3, 2.0):
        choice = choice_of("channel", round_to=multiple, of="macs")
        selected = make_selector(program, units, choice).select(program.parameters, ratio)
        assert selected.keep is not None
        for name, step in zip(("layer0.weight", "layer3.weight"), steps, strict=True):
            width = int(units.kept_along(selected.keep, name, 0).sum())
            assert width % step == 0 and width % multiple == 0


@pytest.mark.parametrize(("multiple", "width"), [(1, 18), (4, 24), (9, 18), (16, 48)])
def test_fillers_are_whole_groups(multiple: int, width: int) -> None:
    """Three groups of 6 are alive; a group more makes a multiple of 4, and only all of them one of 16."""
    program = captured(WIDE)
    units = find_units(program)
    keep = np.ones(units.n_units, dtype=bool)
    keep[units.axes["layer0.weight", 0][18:]] = False
    masked = program.clone().replace(masks=mask_units(program.module, units, keep))
    apply_masks(masked.module, masked.masks)
    small, report = compact(masked, round_to=multiple, lowering="dense", allow_noop=True)
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert small.parameters["layer0.weight"].shape[0] == width
    assert n_groups(small)[0] == width // 6


@pytest.mark.parametrize("zero", ["filters", "scale"])
def test_a_group_that_is_constant_goes_into_the_next_bias(zero: str) -> None:
    """Filters of 0 leave the shift of the norm, and so does a scale of 0; no mask says so."""
    program = captured(chain(conv(3, 12), nn.GroupNorm(4, 12), nn.Tanh(), nn.Conv2d(12, 8, 1), nn.ReLU(), conv(8, 2)))
    with torch.no_grad():
        for name in ("layer0.weight", "layer0.bias") if zero == "filters" else ("layer1.weight",):
            program.parameters[name][3:6] = 0
    small, report = compact(program, lowering="dense")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert n_groups(small) == [3] and [one.n_channels for one in report.folded] == [3]


def test_half_a_group_that_is_0_stays() -> None:
    """Its zeros are part of the mean of the others."""
    program = captured(NETWORKS["plain"])
    with torch.no_grad():
        for name in ("layer0.weight", "layer0.bias"):
            program.parameters[name][3:5] = 0
    small, _ = compact(program, lowering="dense", allow_noop=True)
    assert n_groups(small) == [4]


@pytest.mark.parametrize("name", ["time as scale and shift", "attention", "concatenation", "1-D"])
def test_what_is_left_survives_a_file_and_python_source(name: str, tmp_path: Path) -> None:
    """`export_python` and `export_pt2` run what they wrote and raise when it differs."""
    small, _ = compact(prune(network(name), CUT)[0], lowering="dense")
    save(small, tmp_path / "small.pt")
    again = load(tmp_path / "small.pt")
    assert n_groups(again) == n_groups(small) and difference(exact(small), exact(again)) == 0
    export_python(again, tmp_path / "small.py")
    text = (tmp_path / "small.py").read_text()
    assert all(f"GroupNorm({n}, " in text for n in n_groups(small))
    export_pt2(again, tmp_path / "small.pt2")
