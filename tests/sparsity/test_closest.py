"""Choices in widths that the runtime likes: at least what was asked, hardly more, and never slower for the rounding."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.asking import WalkOptions
from compressor.axes import UnitMap, find_units
from compressor.cost import USUAL, Preference, Preferences
from compressor.errors import RatioError
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import Budget, FilledWork, Selection, find_likes, make_selector
from tests.axes.attention_networks import SixHeads
from tests.choices import choice_of

Bundled = Callable[[str], tuple[Program, UnitMap]]

AVX2 = Preferences({kind: Preference(4, 8, 1.5, 0.7) for kind in USUAL.of_kind})


class Residual(nn.Module):
    """A stranger's small network: a stem, blocks of two convolutions with a sum, two widenings."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        ins = (widths[0], *widths)
        self.narrow = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in zip(ins, widths, strict=False))
        self.wide = nn.ModuleList(nn.Conv2d(o, o, 3, padding=1) for o in widths)
        self.short = nn.ModuleList(nn.Conv2d(i, o, 1, 2) for i, o in zip(ins, widths, strict=False))
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for narrow, wide, short in zip(self.narrow, self.wide, self.short, strict=True):
            x = (wide(narrow(x).relu()) + short(x)).relu()
        return self.head(x.mean((2, 3)))


def depthwise() -> nn.Module:
    """Separable convolutions at widths that another tool left: 127 and 255."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU()]
    for n_in, n_out in ((32, 127), (127, 127), (127, 255)):
        layers += [nn.Conv2d(n_in, n_in, 3, 1, 1, groups=n_in), nn.ReLU(), nn.Conv2d(n_in, n_out, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(255, 10))


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 128, 1), nn.ReLU(), nn.Conv2d(128, 256, 3, groups=4), nn.ReLU(), nn.Conv2d(256, 10, 1)
    )


def narrow() -> nn.Module:
    """No width has a whole block."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Conv2d(12, 10, 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "small residual": lambda: Residual((12, 20, 40)),
    "depthwise": depthwise,
    "grouped": grouped,
    "narrow": narrow,
}


@lru_cache
def captured(name: str) -> tuple[Program, UnitMap]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        program = capture(NETWORKS[name](), [InputSpec("x", (None, 3, 16, 16))])
    return program, find_units(program)


def select(given: tuple[Program, UnitMap], ratio: float, **more: object) -> Selection:
    program, units = given
    return make_selector(program, units, choice_of("channel", **more)).select(program.parameters, ratio)  # type: ignore[arg-type]


@pytest.mark.parametrize("table", [USUAL, AVX2])
@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize("ratio", [1.3, 2.0, 4.0])
@pytest.mark.parametrize("name", [*NETWORKS, "lenet5", "resnet20"])
def test_asked_is_got_and_rounding_costs_no_time(
    name: str, ratio: float, of: str, table: Preferences, bundled: Bundled
) -> None:
    given = captured(name) if name in NETWORKS else bundled(name)
    program, units = given
    work = FilledWork.of(program, units, table)
    exact = select(given, ratio, of=of, round_to=1)
    liked = select(given, ratio, of=of, round_to=0, preferences=table)
    assert exact.keep is not None and liked.keep is not None
    assert ratio * (1 - 1e-9) <= liked.ratio <= ratio * 1.1
    count = (Budget.of_params if of == "params" else Budget.of_macs)(program, units)
    assert liked.ratio == pytest.approx(count.dense / count.cost(liked.keep))
    # What is given up in time comes back as what is not cut: narrow networks come closer to the ratio by it.
    allowed = 1.001 * (max(exact.ratio / ratio, 1.02) / max(liked.ratio / ratio, 1.02)) ** 2
    assert work.at(liked.keep) <= work.at(exact.keep) * (allowed if name == "narrow" else 1.001)


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_no_width_is_one_that_operators_are_slow_at(name: str, ratio: float) -> None:
    program, units = captured(name)
    likes = find_likes(program, units, USUAL)
    selection = select((program, units), ratio, of="macs", round_to=0)
    assert selection.keep is not None
    for g, members in enumerate(units.groups):
        n = int(selection.keep[list(members)].sum())
        assert n % likes.multiples[g] == 0 or n == len(members)


def test_what_another_tool_left_is_mended_by_the_mildest_cut() -> None:
    """At 1.1x most widths could stay whole; but whole they are 127 and 255, which are slow to read."""
    program, units = captured("depthwise")
    work = FilledWork.of(program, units, USUAL)
    exact = select((program, units), 1.1, of="macs", round_to=1)
    liked = select((program, units), 1.1, of="macs", round_to=0)
    assert exact.keep is not None and liked.keep is not None
    assert all(int(liked.keep[list(members)].sum()) % 4 == 0 for members in units.groups)
    dense = work.at(np.ones(units.n_units, dtype=bool))
    assert dense / work.at(liked.keep) > 1.3 > 1.1 > dense / work.at(exact.keep)


def test_a_wide_network_is_cut_in_whole_blocks(bundled: Bundled) -> None:
    program, units = bundled("vgg16-cifar")
    for ratio in (2.0, 4.0):
        selection = select((program, units), ratio, round_to=0)
        assert selection.keep is not None and ratio <= selection.ratio < ratio * 1.02
        assert all(selection.keep[list(members)].sum() % 16 == 0 for members in units.groups)


def test_no_ratio_is_out_of_reach_for_the_rounding(bundled: Bundled) -> None:
    """By whole blocks 20-50-500 reaches 28x at the most, and widths of 8 and 12 nothing at all."""
    for given, ratio in ((bundled("lenet5"), 50.0), (bundled("lenet5"), 200.0), (captured("narrow"), 6.0)):
        exact = select(given, ratio, round_to=1)
        liked = select(given, ratio, round_to=0)
        assert ratio * (1 - 1e-9) <= liked.ratio <= 1.1 * max(ratio, exact.ratio)
    with pytest.raises(RatioError, match="largest feasible"):
        select(bundled("lenet5"), 100_000.0, round_to=0)


def test_the_twin_blocks_alone_would_not_do(bundled: Bundled) -> None:
    with pytest.raises(RatioError, match="largest feasible"):
        select(bundled("lenet5"), 50.0, round_to=16)


def test_a_machine_without_blocks_gets_what_the_scores_say() -> None:
    given = captured("residual")
    exact = select(given, 2.0, round_to=1)
    liked = select(given, 2.0, round_to=0, preferences=Preferences())
    assert exact.keep is not None and liked.keep is not None
    assert np.array_equal(exact.keep, liked.keep)


def test_heads_are_not_rounded_inside() -> None:
    program = capture(SixHeads(), [InputSpec("x", (None, 5, 36))])
    units = find_units(program, WalkOptions(keep_heads=True))
    exact, liked = (
        make_selector(program, units, choice_of("head", round_to=n)).select(program.parameters, 2.0).keep
        for n in (1, 0)
    )
    assert exact is not None and liked is not None
    assert np.array_equal(exact, liked) and 0 < int(liked[units.heads].sum()) < 6


def test_what_columns_are_cut_as_well_the_ratio_is_met_closely(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    likes = find_likes(program, units, USUAL)
    selector = make_selector(program, units, choice_of("filter+shape", round_to=0, unit_share=0.8))
    selection = selector.select(program.parameters, 4.0)
    assert selection.keep is not None and 4.0 * (1 - 1e-9) <= selection.ratio < 4.0 * 1.01
    kept = [int(selection.keep[list(members)].sum()) for members in units.groups]
    assert all(n % likes.multiples[g] == 0 for g, n in enumerate(kept))


def test_a_second_cut_starts_from_widths_that_another_tool_left() -> None:
    given = captured("residual")
    program, units = given
    first = select(given, 1.5, round_to=1)
    selector = make_selector(program, units, choice_of("channel", round_to=0))
    second = selector.select(program.parameters, 3.0, first.masks)
    assert second.keep is not None and first.keep is not None
    assert not (second.keep & ~first.keep).any()
    assert 3.0 * (1 - 1e-9) <= second.ratio <= 3.0 * 1.1


def test_a_ratio_that_was_reached_cuts_nothing_for_the_sake_of_widths(bundled: Bundled) -> None:
    """Each stage of a run cuts to its ratio again: 50 of 50 channels must not become 48 at the second time."""
    program, units = bundled("lenet5")
    selector = make_selector(program, units, choice_of("channel", round_to=0))
    exact = select((program, units), 2.0, round_to=1)
    for before in (exact, select((program, units), 2.0, round_to=0)):
        again = selector.select(program.parameters, 2.0, before.masks)
        assert again.keep is not None and before.keep is not None
        assert np.array_equal(again.keep, before.keep)
