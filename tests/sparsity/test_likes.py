"""Which widths of a network are liked: every role of a width, and units that count several times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.asking import WalkOptions
from compressor.axes import find_units
from compressor.cost import USUAL, Preference, Preferences, filled_work
from compressor.cost.preferences import KINDS
from compressor.program import InputSpec, Program, capture, find_layers
from compressor.sparsity import FilledWork, find_likes, steps_of
from compressor.sparsity.likes import Likes
from tests.axes.attention_networks import SixHeads

TABLE = Preferences(
    {
        "convolution": Preference(4, 16),
        "pointwise": Preference(2, 8),
        "depthwise": Preference(8, 8),
        "grouped": Preference(16, 16),
        "product": Preference(1, 4),
        "concat": Preference(32, 32),
    }
)


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 64, 1), nn.Conv2d(3, 96, 1)
        self.last = nn.Conv2d(160, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.a(x), self.b(x)], 1).relu())


def net(*layers: nn.Module) -> Program:
    return capture(nn.Sequential(*layers), [InputSpec("x", (None, 3, 8, 8))])


def liked(program: Program, layer: str) -> tuple[int, int]:
    """Multiple and block of the width that this layer's filters are."""
    units = find_units(program)
    likes = find_likes(program, units, TABLE)
    group = units.group_of[units.axes[f"{layer}.weight", 0][0]]
    return int(likes.multiples[group]), int(likes.blocks[group])


@pytest.mark.parametrize(
    ("made", "layer", "multiple", "block"),
    [
        (lambda: net(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3)), "0", 4, 16),
        # the strictest of several roles: written by one convolution, read by another one
        (lambda: net(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 1)), "0", 4, 16),
        (lambda: net(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 8, 1)), "0", 8, 8),
        # a unit is a filter of each of two groups: 16 of them make two groups of 16
        (lambda: net(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, groups=2), nn.Conv2d(64, 8, 1)), "2", 16, 16),
        # flattened, a channel is 36 features, and 36 of them are whole fours however many there are
        (lambda: net(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 8)), "0", 4, 16),
        (lambda: net(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 8)), "1", 1, 4),
        # beside others whole blocks are better, but no width is slow for it
        (lambda: capture(Concat(), [InputSpec("x", (None, 3, 8, 8))]), "a", 2, 32),
    ],
)
def test_a_width_is_liked_by_all_of_its_operators(
    made: Callable[[], Program], layer: str, multiple: int, block: int
) -> None:
    assert liked(made(), layer) == (multiple, block)


def test_levels_go_from_blocks_to_single_units_and_narrow_widths_go_first() -> None:
    program = net(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
    units = find_units(program)
    likes = find_likes(program, units, TABLE)
    wide, narrow = (int(units.group_of[units.axes[f"{layer}.weight", 0][0]]) for layer in ("0", "2"))
    steps = [(int(level[wide]), int(level[narrow])) for level in likes.levels(np.array([64, 16])[[wide, narrow]])]
    assert steps == [(16, 16), (16, 8), (8, 8), (16, 4), (4, 4), (16, 2), (2, 2), (16, 1), (1, 1)]


def test_levels_are_whole_numbers_of_units() -> None:
    levels = Likes(np.array([1]), np.array([12])).levels(np.array([12]))
    assert [level.tolist() for level in levels[::2]] == [[12], [6], [3], [1]]
    assert all(np.issubdtype(level.dtype, np.integer) for level in levels)


@pytest.mark.parametrize("table", [TABLE, USUAL])
def test_the_work_of_groups_is_that_of_each(table: Preferences) -> None:
    program = net(
        nn.Conv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 96, 3, groups=4), nn.ReLU(),
        nn.ConvTranspose2d(96, 24, 2, groups=3), nn.Conv2d(24, 8, 1),
    )  # fmt: skip
    units = find_units(program)
    work = FilledWork.of(program, units, table).at(np.ones(units.n_units, dtype=bool))
    assert work == pytest.approx(filled_work(program, table))


@pytest.mark.parametrize("table", [TABLE, USUAL])
def test_the_work_of_a_choice_is_that_of_the_network_it_leaves(table: Preferences) -> None:
    def build(first: int, second: int) -> Program:
        return net(
            nn.Conv2d(3, first, 3), nn.ReLU(), nn.Conv2d(first, first, 3, groups=first), nn.Conv2d(first, second, 1),
            nn.ReLU(), nn.Flatten(), nn.Linear(second * 16, 8),
        )  # fmt: skip

    dense = build(48, 40)
    units = find_units(dense)
    work = FilledWork.of(dense, units, table)
    assert work.at(np.ones(units.n_units, dtype=bool)) == pytest.approx(filled_work(dense, table))
    keep = np.ones(units.n_units, dtype=bool)
    keep[units.axes["0.weight", 0][21:]] = False
    keep[units.axes["3.weight", 0][30:]] = False
    assert work.at(keep) == pytest.approx(filled_work(build(21, 30), table))


@pytest.mark.parametrize(
    ("made", "layer", "multiple", "step"),
    [
        (lambda: net(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3)), "0", 8, 8),
        # a filter of each of two groups; the channels of a group; both at once
        (lambda: net(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, groups=2), nn.Conv2d(64, 8, 1)), "2", 8, 4),
        (lambda: net(nn.Conv2d(3, 60, 3), nn.GroupNorm(10, 60), nn.Conv2d(60, 8, 1)), "0", 8, 4),
        (lambda: net(nn.Conv2d(3, 60, 3), nn.GroupNorm(10, 60), nn.Conv2d(60, 8, 1)), "0", 6, 1),
        (
            lambda: net(
                nn.Conv2d(3, 60, 1), nn.ReLU(), nn.Conv2d(60, 60, 3, groups=2), nn.GroupNorm(10, 60),
                nn.Conv2d(60, 8, 1),
            ),
            "2", 8, 2,
        ),
        # what one layer writes and reads flat: its filters count
        (lambda: net(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 8)), "0", 8, 8),
    ],
)  # fmt: skip
def test_a_multiple_is_one_of_filters(made: Callable[[], Program], layer: str, multiple: int, step: int) -> None:
    program = made()
    units = find_units(program)
    group = units.group_of[units.axes[f"{layer}.weight", 0][0]]
    assert int(steps_of(units, find_layers(program), multiple)[group]) == step


def test_a_head_has_as_many_filters_as_features() -> None:
    program = capture(SixHeads(), [InputSpec("x", (None, 5, 36))])
    units = find_units(program, WalkOptions(keep_heads=True))
    steps = [int(steps_of(units, find_layers(program), n)[units.group_of[units.heads][0]]) for n in (1, 6, 4, 8)]
    assert steps == [1, 1, 2, 4]


def test_whole_blocks_go_where_a_group_has_two_of_them() -> None:
    steps = Likes(np.array([3, 3, 3, 3]), np.array([12, 12, 12, 12])).steps(np.array([5, 23, 24, 25]))
    assert steps.tolist() == [3, 3, 12, 12]


def test_the_first_unit_counts_as_often_as_any_other() -> None:
    """32 filters tied to 16 units by a convolution in two groups: two of them make four."""
    program = net(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 6, 3, groups=2))
    units = find_units(program)
    fours = Preferences({**dict.fromkeys(KINDS, Preference(1, 1)), "pointwise": Preference(4, 4)})
    likes = find_likes(program, units, fours)
    assert units.axes["0.weight", 0].tolist() == [*range(16), *range(16)]
    assert int(likes.multiples[units.group_of[0]]) == 2


def test_a_network_without_layers_has_no_work() -> None:
    program = net(nn.ReLU())
    work = FilledWork.of(program, find_units(program), USUAL)
    assert work.flat.size == 0 and work.at(np.zeros(0, dtype=bool)) == 0.0
