"""Selectors: asked = got, scopes, floors, rounding, and what is not feasible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from compressor.axes import UnitMap, find_units
from compressor.errors import PatternError, RatioError, UsageError
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import Budget, Choice, Selection, make_selector
from tests.axes.tracing import trace
from tests.choices import asking, choice_of

Bundled = Callable[[str], tuple[Program, UnitMap]]
NETWORKS = ("lenet-300-100", "lenet5", "resnet20")
NO_FLOOR = choice_of("channel", floor=0.0)


def select(given: tuple[Program, UnitMap], choice: Choice, ratio: float) -> Selection:
    program, units = given
    return make_selector(program, units, choice).select(program.parameters, ratio)


def widths_left(given: tuple[Program, UnitMap], selection: Selection) -> dict[str, tuple[int, int]]:
    """Kept and dense filters of every weight that was cut along its filters."""
    parameters = given[0].parameters
    return {
        name: (int(mask.flatten(1).any(1).sum()), len(mask))
        for name, mask in selection.masks.items()
        if parameters[name].dim() > 1
    }


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize("pattern", ["filter", "channel", "unstructured"])
def test_asked_is_got_within_two_per_cent_and_never_less(bundled: Bundled, name: str, of: str, pattern: str) -> None:
    for ratio in (1.5, 2, 4, 8, 13):
        selection = select(bundled(name), choice_of(pattern, of=of, floor=0.0), ratio)
        assert ratio <= selection.ratio * (1 + 1e-9), f"{ratio}x asked, {selection.ratio:.3f}x got"
        assert selection.ratio <= 1.02 * ratio, f"{ratio}x asked, {selection.ratio:.3f}x got"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pattern_of_units_and_columns_cuts_both(bundled: Bundled, name: str) -> None:
    """With columns alone a filter goes only when nothing of it is left to read."""
    found = {
        pattern: select(bundled(name), choice_of(pattern, floor=0.02), 4.0) for pattern in ("shape", "filter+shape")
    }
    dense, kept = {}, {}
    for pattern, selection in found.items():
        left = widths_left(bundled(name), selection).values()
        kept[pattern], dense[pattern] = sum(k for k, _ in left), sum(n for _, n in left)
    assert kept["filter+shape"] < 0.95 * dense["filter+shape"]
    assert kept["filter+shape"] < kept["shape"] + dense["filter+shape"] - dense["shape"]
    columns = [mask.flatten(1) for mask in found["filter+shape"].masks.values() if mask.dim() > 1]
    alive = [mask[mask.any(1)] for mask in columns]
    assert any(len(mask) and not bool(mask.all()) for mask in alive), "no column was cut"


@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_both_allocations_meet_the_budget(bundled: Bundled, allocation: str) -> None:
    for pattern in ("channel", "unstructured"):
        selection = select(bundled("lenet5"), choice_of(pattern, allocation=allocation), 6.0)
        assert 6.0 <= selection.ratio <= 1.02 * 6.0


def test_what_is_kept_is_counted_by_the_masks(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    selector = make_selector(program, units, NO_FLOOR)
    selection = selector.select(program.parameters, 3.0)
    zeroed = sum(int((~mask).sum()) for mask in selection.masks.values())
    assert selection.keep is not None
    assert selection.kept == program.n_parameters - zeroed == selector.kept_cost(selection.masks, selection.keep)
    weights = make_selector(program, units, choice_of("unstructured"))
    single = weights.select(program.parameters, 3.0)
    assert single.keep is None
    assert weights.kept_cost(single.masks, np.ones(units.n_units, dtype=bool)) == pytest.approx(single.kept)


def test_uniform_takes_equal_shares_of_every_layer(bundled: Bundled) -> None:
    given = bundled("lenet5")
    left = widths_left(given, select(given, choice_of("channel", allocation="uniform"), 3.0))
    shares = [kept / dense for name, (kept, dense) in left.items() if name != "fc2.weight"]
    assert max(shares) - min(shares) < 0.08
    single = select(given, choice_of("unstructured", allocation="uniform"), 3.0)
    densities = [float(mask.float().mean()) for mask in single.masks.values()]
    assert max(densities) - min(densities) < 0.02


def test_an_infeasible_ratio_names_the_largest_feasible_one(bundled: Bundled) -> None:
    for pattern in ("channel", "unstructured"):
        with pytest.raises(RatioError, match="largest feasible") as caught:
            select(bundled("lenet5"), choice_of(pattern), 100_000.0)
        largest = float(str(caught.value).split("largest feasible is ")[1].split("x")[0])
        assert select(bundled("lenet5"), choice_of(pattern), 0.97 * largest).ratio >= 0.97 * largest


@pytest.mark.parametrize("floor", [0.05, 0.25, 0.5])
def test_floors_hold_in_every_width(bundled: Bundled, floor: float) -> None:
    program, units = bundled("resnet20")
    selection = select((program, units), choice_of("channel", floor=floor), 1.6)
    assert selection.keep is not None
    for members in units.groups:
        assert selection.keep[list(members)].sum() >= max(1, floor * len(members))


def test_rounding_keeps_multiples_where_there_are_as_many(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    selection = select((program, units), choice_of("channel", round_to=8), 2.0)
    assert selection.keep is not None and selection.ratio >= 2.0
    for members in units.groups:
        assert selection.keep[list(members)].sum() % 8 == 0
    assert any(selection.keep[list(m)].sum() < len(m) for m in units.groups)


def test_rounding_gives_back_every_multiple_that_still_fits(bundled: Bundled) -> None:
    program, units = bundled("lenet5")
    selection = select((program, units), choice_of("channel", round_to=16), 13.0)
    assert selection.keep is not None and selection.ratio >= 13.0
    budget, target = Budget.of_params(program, units), selection.dense / 13.0
    for members in map(list, units.groups):
        gone = [unit for unit in members if not selection.keep[unit]]
        more = selection.keep.copy()
        more[gone[:16]] = True
        assert not gone or budget.cost(more) > target


def test_a_rounded_width_is_a_multiple_or_whole(bundled: Bundled) -> None:
    """Of 500 neurons four are left over by 16: giving these back first would leave 84."""
    program, units = bundled("lenet5")
    for ratio in (1.7, 3.0, 5.0, 9.0, 12.5, 13.0, 13.5, 20.0):
        selection = select((program, units), choice_of("channel", round_to=16), ratio)
        assert selection.keep is not None and selection.ratio >= ratio * (1 - 1e-9)
        for members in map(list, units.groups):
            kept = int(selection.keep[members].sum())
            assert kept % 16 == 0 or kept == len(members), (ratio, kept)


def test_a_width_that_is_no_multiple_gives_way_where_that_comes_closer(bundled: Bundled) -> None:
    """20 channels of the first layer would leave 80 neurons (14.4x); 16 leave 96 (13.3x)."""
    program, units = bundled("lenet5")
    weights = dict(program.parameters)
    weights["conv1.weight"] = weights["conv1.weight"].detach() * torch.linspace(10, 1, 20)[:, None, None, None]
    weights["conv1.weight"][-1] *= 0.0
    selection = make_selector(program, units, choice_of("channel", round_to=16)).select(weights, 13.0)
    assert 13.0 <= selection.ratio < 13.5


def test_only_layers_in_scope_lose_filters(bundled: Bundled) -> None:
    given = bundled("lenet5")
    left = widths_left(given, select(given, choice_of("channel", scope=("conv*",)), 2.0))
    assert left["conv2.weight"][0] < 50 or left["conv1.weight"][0] < 20
    assert left["fc1.weight"] == (500, 500)  # loses columns, no row
    single = select(given, choice_of("unstructured", scope=("fc*",)), 2.0)
    assert set(single.masks) == {"fc1.weight", "fc2.weight"}


def test_kept_layers_keep_their_filters(bundled: Bundled) -> None:
    given = bundled("lenet5")
    selection = select(given, choice_of("channel", keep=("conv2", "fc2")), 3.0)
    assert widths_left(given, selection).get("conv2.weight", (50, 50)) == (50, 50)
    single = select(given, choice_of("unstructured", keep=("conv2",)), 3.0)
    assert "conv2.weight" not in single.masks and single.ratio >= 3.0


@pytest.mark.parametrize("option", ["scope", "keep"])
def test_a_glob_without_a_layer_is_an_error_with_names(bundled: Bundled, option: str) -> None:
    choice = asking(NO_FLOOR, **{option: ("convolution7",)})
    with pytest.raises(UsageError, match=rf"--{option} convolution7: matches no layer; layers are conv1, conv2, fc1"):
        select(bundled("lenet5"), choice, 2.0)


def test_nothing_to_prune_is_an_error() -> None:
    traced = trace(lambda net, x: net.a(x), (3,), a=nn.Linear(3, 4))
    with pytest.raises(PatternError, match="--pattern channel: nothing in scope can be pruned"):
        make_selector(traced.program, traced.units, NO_FLOOR)
    bare = trace(lambda net, x: net.a(x), (4, 3, 3), a=nn.BatchNorm2d(4))
    with pytest.raises(PatternError, match="unstructured: no convolution or linear weight in scope"):
        make_selector(bare.program, bare.units, choice_of("unstructured"))


def test_the_smallest_units_go_first(bundled: Bundled) -> None:
    program, units = bundled("lenet5")
    tensors = {name: p.detach().clone() for name, p in program.parameters.items()}
    weak = [5, 11, 17]
    tensors["conv2.weight"][weak] *= 1e-4
    tensors["conv2.bias"][weak] = 0.0
    for column in weak:
        tensors["fc1.weight"][:, 16 * column : 16 * (column + 1)] *= 1e-4
    selection = make_selector(program, units, NO_FLOOR).select(tensors, 1.2)
    assert selection.keep is not None
    assert not selection.keep[units.axes["conv2.weight", 0][weak]].any()


def test_random_choices_follow_the_seed_and_not_the_weights(bundled: Bundled) -> None:
    program, units = bundled("lenet5")
    noise = {name: torch.randn_like(p) for name, p in program.parameters.items()}
    choice = choice_of("channel", method="random", seed=3)
    first, again = (make_selector(program, units, choice).select(t, 3.0) for t in (program.parameters, noise))
    other = select((program, units), asking(choice, seed=4), 3.0)
    assert first.keep is not None and again.keep is not None and other.keep is not None
    assert np.array_equal(first.keep, again.keep) and not np.array_equal(first.keep, other.keep)


def test_no_part_of_a_split_is_emptied() -> None:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a, b = net.first(x).chunk(2, 1)
        return net.out(torch.cat((nn.functional.max_pool2d(b, 2), nn.functional.max_pool2d(a, 2)), 1))

    first, out = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 2, 1)
    with torch.no_grad():
        first.weight[:6] *= 1e-3
        out.weight[:, 6:] *= 1e-3
    traced = trace(forward, (3, 4, 4), first=first, out=out)
    selection = select((traced.program, traced.units), NO_FLOOR, 1.9)
    assert selection.keep is not None
    kept = traced.units.kept_along(selection.keep, "first.weight", 0)
    assert kept[:6].sum() == 1 and kept[6:].sum() > 1


@pytest.mark.parametrize(
    ("pattern", "of"), [("block:4x4", "params"), ("block:1x5", "params"), ("block:1x5", "macs"), ("block:10x1", "macs")]
)
def test_blocks_are_whole_and_meet_the_budget(bundled: Bundled, pattern: str, of: str) -> None:
    program, units = bundled("lenet5")
    rows, columns = map(int, pattern.removeprefix("block:").split("x"))
    selector = make_selector(program, units, choice_of(pattern, of=of))
    selection = selector.select(program.parameters, 3.0)
    assert 3.0 * (1 - 1e-9) <= selection.ratio <= 3.06
    assert selector.kept_cost(selection.masks, np.ones(units.n_units, dtype=bool)) == pytest.approx(selection.kept)
    for name, mask in selection.masks.items():
        gemm = mask.flatten(1)
        tiles = gemm.reshape(len(gemm) // rows, rows, -1, columns).float().mean(dim=(1, 3))
        assert ((tiles == 0) | (tiles == 1)).all(), name
    left_dense = set(program.parameters) - set(selection.masks)
    assert ("fc2.weight" in left_dense) == (pattern == "block:4x4")
    assert bool(selector.notes) == (pattern == "block:4x4")


def test_a_named_layer_must_be_tiled_by_its_blocks(bundled: Bundled) -> None:
    program, units = bundled("lenet5")
    with pytest.raises(
        PatternError, match=r"^fc2: block:4x4 needs filters divisible by 4, got 10; skip it with --keep"
    ):
        make_selector(program, units, choice_of("block:4x4", scope=("fc*",)))
    assert make_selector(program, units, choice_of("block:4x4", scope=("fc*",), keep=("fc2",))).notes == ()


def test_single_weights_are_the_projection_for_their_counts(bundled: Bundled) -> None:
    given = bundled("lenet5")
    selection = select(given, choice_of("unstructured", of="macs"), 7.0)
    for name, mask in selection.masks.items():
        magnitudes = given[0].parameters[name].detach().abs()
        assert magnitudes[mask].min() >= magnitudes[~mask].max(), name


def test_equal_weights_are_chosen_by_place_every_time(bundled: Bundled) -> None:
    program, units = bundled("lenet5")
    equal = {name: torch.full_like(p, 0.5) for name, p in program.parameters.items()}
    selector = make_selector(program, units, choice_of("unstructured"))
    first, again = selector.select(equal, 4.0), selector.select(equal, 4.0)
    assert first.ratio == pytest.approx(4.0, rel=1e-3)
    for name, mask in first.masks.items():
        assert torch.equal(mask, again.masks[name])
        n = int(mask.sum())
        assert mask.flatten()[:n].all(), "the first ones stay"


FIRST, NORM, LAST = nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), [nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)]
REFUSED: dict[str, tuple[list[nn.Module], float, bool]] = {
    "nothing may go": ([FIRST, NORM], 1.01, True),
    "less than asked may go": ([FIRST, NORM, *LAST], 50.0, True),
    "no norm pins": ([FIRST, *LAST], 50.0, False),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_norms_pin_the_refusal_says_what_lets_them_go(name: str) -> None:
    layers, ratio, is_told = REFUSED[name]
    program = capture(nn.Sequential(*layers), [InputSpec("x", (None, 3, 9, 9))])
    with pytest.raises((PatternError, RatioError)) as caught:
        select((program, find_units(program)), NO_FLOOR, ratio)
    assert ("--through-norm exact lets" in str(caught.value)) == is_told
    assert len(str(caught.value).splitlines()) <= 3
