"""What kernels like: the arithmetic of blocks, which kind an operator is, and that a clock's table is found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.cost import (
    USUAL,
    Preference,
    Preferences,
    Stopwatch,
    contractions,
    count_macs,
    filled_work,
    find_preferences,
    probes,
)
from compressor.cost.preferences import KINDS
from compressor.cost.probes import chain
from compressor.program import InputSpec, capture
from tests.kernels import Broken, Kernels


def same(preference: Preference) -> Preferences:
    return Preferences(dict.fromkeys(KINDS, preference))


@pytest.mark.parametrize(
    ("n", "written", "read"),
    [
        (16, 16, 16),
        (32, 32, 32),
        (20, 32, 32),
        (4, 16, 4),
        (8, 16, 8),
        (12, 16, 12),
        (19, 32, 48),
        (6, 16, 6),
        (1, 16, 1),
        (3, 16, 3),
    ],
)
def test_widths_are_filled_up(n: int, written: float, read: float) -> None:
    """By blocks of 16 and multiples of 4, others taking 1.5 times as long; below a block channels are read alone."""
    liked = Preference(4, 16, odd=1.5)
    assert float(liked.written(n)) == pytest.approx(written)
    assert float(liked.read(n)) == pytest.approx(read)


def test_half_of_a_block_may_take_as_long_as_all_of_it_or_longer() -> None:
    alike = Preference(4, 16, half=1.0, quarter=1.0)
    assert [float(alike.read(n)) for n in (2, 4, 8, 12, 16, 20)] == [8, 16, 16, 16, 16, 32]
    longer = Preference(4, 16, half=1.2, quarter=1.0)
    assert [float(longer.read(n)) / 16 for n in (4, 8, 12, 16)] == pytest.approx([1.0, 1.2, 1.4, 1.0])


def test_many_operators_at_once_are_each_what_they_are_alone() -> None:
    table = [USUAL[kind] for kind in KINDS]
    widths = np.array([3, 16, 17, 24, 50, 63])
    together = Preference.stacked(table)
    assert together.written(widths).tolist() == [float(p.written(n)) for p, n in zip(table, widths, strict=True)]
    assert together.read(widths).tolist() == [float(p.read(n)) for p, n in zip(table, widths, strict=True)]


@pytest.mark.parametrize(
    ("layer", "shape", "kind", "parts"),
    [
        (nn.Conv2d(32, 64, 3), (32, 9, 9), "convolution", (1, 1)),
        (nn.Conv2d(32, 64, 1), (32, 9, 9), "pointwise", (1, 1)),
        (nn.Conv2d(32, 32, 3, groups=32), (32, 9, 9), "depthwise", (1, 1)),
        (nn.Conv2d(32, 64, 3, groups=4), (32, 9, 9), "grouped", (4, 1)),
        (nn.Conv1d(32, 64, 3), (32, 9), "product", (1, 1)),
        (nn.ConvTranspose2d(32, 64, 3, groups=2), (32, 9, 9), "product", (1, 2)),
        (nn.Linear(32, 64), (32,), "product", (1, 1)),
    ],
)
def test_an_operator_is_of_a_kind(layer: nn.Module, shape: tuple[int, ...], kind: str, parts: tuple[int, int]) -> None:
    (found,) = contractions(capture(layer, [InputSpec("x", (None, *shape))]))
    assert (found.kind, (found.out_parts, found.in_parts)) == (kind, parts)


def test_without_blocks_the_work_is_what_is_counted() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 17, 3), nn.ReLU(), nn.Conv2d(17, 34, 3, groups=17), nn.Flatten(), nn.Linear(850, 5)
    )
    program = capture(net, [InputSpec("x", (None, 3, 9, 9))])
    assert filled_work(program, Preferences()) == count_macs(program)
    assert filled_work(program, USUAL) > 1.2 * count_macs(program)


def test_what_is_usual_could_have_been_found() -> None:
    for kind in KINDS:
        liked = USUAL[kind]
        assert liked.multiple in probes._MULTIPLES and liked.block in probes._BLOCKS and liked.multiple <= liked.block
        assert 1.0 <= liked.odd <= probes._MOST_ODD
        assert 1 / 4 <= liked.quarter <= liked.half <= probes._MOST_FEW and liked.half >= 1 / 2


AROUND = {"concat": ["pointwise"] * 3, "product": ["product"] * 2, "pointwise": ["pointwise"] * 2}
"""The operators of a chain, where they are others than one of its kind among pointwise ones."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [4, 33, 64])
def test_a_probe_runs(kind: str, width: int) -> None:
    program = chain(kind, width)
    inputs = program.example_inputs(1)
    with torch.no_grad():
        (output,) = program.module(*inputs)
    assert output.shape == inputs[0].shape
    around = ["pointwise", kind] if kind == "convolution" else ["pointwise", kind, "pointwise"]
    assert [found.kind for found in contractions(program)] == AROUND.get(kind, around)


@pytest.mark.parametrize(("multiple", "block"), [(1, 4), (4, 4), (1, 8), (4, 8), (8, 8), (4, 16), (16, 16), (4, 32)])
def test_what_a_machine_likes_is_found(multiple: int, block: int) -> None:
    clock: Stopwatch = Kernels(same(Preference(multiple, block, odd=1.5 if multiple > 1 else 1.0)))
    found = find_preferences(clock)
    assert found.trouble is None
    for kind in set(KINDS) - {"concat"}:  # which a clock of single layers cannot see
        assert (found[kind].multiple, found[kind].block) == (multiple, block), kind


@pytest.mark.parametrize(("odd", "half", "quarter"), [(1.5, 0.8, 0.5), (1.2, 1.2, 1.0), (3.0, 0.5, 0.25)])
def test_how_much_a_machine_likes_it_is_found(odd: float, half: float, quarter: float) -> None:
    found = find_preferences(Kernels(same(Preference(4, 16, odd, half, quarter))))
    for kind in set(KINDS) - {"concat"}:
        liked = found[kind]
        assert (liked.odd, liked.half, liked.quarter) == pytest.approx((odd, half, quarter), rel=0.02), kind


def test_a_machine_that_does_not_care_is_left_alone() -> None:
    found = find_preferences(Kernels(Preferences()))
    assert all(found[kind].multiple == 1 and found[kind].block <= 4 for kind in KINDS)


def test_where_nothing_can_be_measured_the_usual_is_taken_and_said() -> None:
    assert find_preferences(None) == USUAL
    found = find_preferences(Broken())
    assert found.of_kind == USUAL.of_kind
    assert found.trouble is not None and found.trouble.endswith("are taken: no kernel image")
