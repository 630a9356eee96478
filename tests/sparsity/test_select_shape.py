"""Columns, alone and inside of units: the budget against a count from the masks, unread units, grains, rounding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.axes import UnitMap
from compressor.cost import weight_prices
from compressor.errors import PatternError, RatioError
from compressor.program import Program, find_layers
from compressor.sparsity import Choice, Selection, apply_masks, kept_units, make_selector, merge_masks
from tests.axes.tracing import Traced, trace
from tests.choices import asking, choice_of

Bundled = Callable[[str], tuple[Program, UnitMap]]
PATTERNS = ("shape", "shape:channel", "shape:position", "filter+shape", "channel+shape", "channel+shape:channel")
NO_FLOOR = choice_of("shape", floor=0.0)
# Fully connected layers have one kernel position, and nearly all weights of the LeNets.
CASES = [
    (name, pattern)
    for name in ("lenet-300-100", "lenet5", "resnet20")
    for pattern in PATTERNS
    if name == "resnet20" or pattern != "shape:position"
]


def select(given: tuple[Program, UnitMap], choice: Choice, ratio: float) -> Selection:
    return make_selector(*given, choice).select(given[0].parameters, ratio)


def rows_and_columns(mask: Tensor, out_dim: int) -> tuple[int, int]:
    gemm = mask.movedim(out_dim, 0).flatten(1)
    return int(gemm.any(1).sum()), int(gemm.any(0).sum())


def counted(program: Program, masks: Mapping[str, Tensor], of: str) -> float:
    """Rows x columns that the masks leave of every weight, and what they leave of everything else: no units needed."""
    out_dims = {layer.weight: layer.out_dim for layer in find_layers(program) if layer.in_dim is not None}
    prices = weight_prices(program)
    price = {layer.weight: prices[layer.node] for layer in find_layers(program) if layer.node in prices}
    total = 0.0
    for name, parameter in program.parameters.items():
        mask = masks.get(name, torch.ones(parameter.shape, dtype=torch.bool))
        if of == "params" and name not in out_dims:
            total += int(mask.sum())
        elif name in out_dims:
            rows, columns = rows_and_columns(mask, out_dims[name])
            assert int(mask.sum()) == rows * columns, f"{name}: not whole rows and columns"
            total += rows * columns * (price[name] if of == "macs" else 1.0)
    return total


@pytest.mark.parametrize(("name", "pattern"), CASES)
@pytest.mark.parametrize("of", ["params", "macs"])
def test_asked_is_got_and_is_what_the_masks_leave(bundled: Bundled, name: str, of: str, pattern: str) -> None:
    program, units = bundled(name)
    for ratio in (1.5, 4.0) if pattern in ("shape:position", "shape:channel") else (1.5, 4.0, 9.0):
        selection = select((program, units), choice_of(pattern, of=of, floor=0.0), ratio)
        assert selection.kept == pytest.approx(counted(program, selection.masks, of))
        assert ratio <= selection.ratio * (1 + 1e-9)
        coarse = pattern in ("shape:position", "shape:channel", "channel+shape:channel")
        assert selection.ratio <= ratio * (1.15 if coarse else 1.02)
        selector = make_selector(program, units, choice_of(pattern, of=of))
        keep = kept_units(units, selection.masks, program.parameters)
        assert selector.kept_cost(selection.masks, keep) == pytest.approx(selection.kept)


def test_a_column_is_the_same_for_all_filters_and_the_best_ones_stay() -> None:
    traced = trace(lambda net, x: net.a(x), (2, 6, 6), a=nn.Conv2d(2, 4, 2, bias=False))
    weight = traced.program.parameters["a.weight"].detach()
    energy = weight.square().sum(0).flatten()
    for n in range(1, 8):
        mask = select((traced.program, traced.units), NO_FLOOR, 8 / n).masks["a.weight"]
        assert (mask == mask[:1]).all()
        kept = mask[0].flatten()
        best = max(itertools.combinations(range(8), n), key=lambda chosen: float(energy[list(chosen)].sum()))
        assert kept.nonzero().flatten().tolist() == sorted(best)


def shared() -> Traced:
    """`one` is read by two layers; `two` by one."""
    return trace(
        lambda net, x: net.out(net.two(net.one(x).relu()).relu()) + net.side(net.one(x).relu()),
        (3,),
        one=nn.Linear(3, 4),
        two=nn.Linear(4, 5),
        out=nn.Linear(5, 2),
        side=nn.Linear(4, 2),
    )


def test_a_unit_goes_when_its_last_reader_lets_go_of_it() -> None:
    traced = shared()
    tensors = {name: torch.ones_like(p) for name, p in traced.program.parameters.items()}
    tensors["two.weight"][:, 0] = 1e-6
    selector = make_selector(traced.program, traced.units, NO_FLOOR)
    read_once = selector.select(tensors, 1.01)
    assert read_once.keep is not None and read_once.keep.all(), "`side` still reads it"
    assert not read_once.masks["two.weight"][:, 0].any() and set(read_once.masks) == {"two.weight"}
    tensors["side.weight"][:, 0] = 1e-6
    unread = selector.select(tensors, 1.15)
    unit = traced.along("one.weight", 0)[0]
    assert unread.keep is not None and np.flatnonzero(~unread.keep).tolist() == [unit]
    assert not unread.masks["one.weight"][0].any() and not unread.masks["one.bias"][0]


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_cutting_unread_units_changes_nothing_that_comes_out(bundled: Bundled, name: str) -> None:
    program, units = bundled(name)
    selection = select((program, units), choice_of("shape", floor=0.0), 9.0)
    assert selection.keep is not None and not selection.keep.all(), "there must be something to test"
    columns_only = make_selector(program, units, NO_FLOOR)
    chosen = columns_only.columns.of_masks(selection.masks)  # type: ignore[attr-defined]
    everything = np.ones(units.n_units, dtype=bool)
    bare = columns_only.columns.masks(everything, chosen, program.parameters)  # type: ignore[attr-defined]
    whole, narrow = program.clone(), program.clone()
    apply_masks(narrow.module, bare)
    apply_masks(whole.module, selection.masks)
    x = program.example_inputs(3)
    with torch.no_grad():
        assert torch.allclose(whole.module(*x), narrow.module(*x), atol=1e-5)
        assert not torch.allclose(whole.module(*x), program.module(*x), atol=1e-3), "the twin: the cut itself shows"


def test_layers_to_keep_keep_their_unread_filters(bundled: Bundled) -> None:
    selection = select(bundled("lenet5"), choice_of("shape", floor=0.0, keep=("conv2",)), 9.0)
    assert "conv2.weight" not in selection.masks and "conv2.bias" not in selection.masks


def test_only_layers_in_scope_lose_columns(bundled: Bundled) -> None:
    selection = select(bundled("lenet5"), choice_of("shape", scope=("conv2",)), 4.0)
    assert selection.ratio == pytest.approx(4.0, rel=0.02)
    assert set(selection.masks) <= {"conv2.weight", "conv2.bias"}


@pytest.mark.parametrize("pattern", ["shape:channel", "shape:position"])
def test_grains_go_together(bundled: Bundled, pattern: str) -> None:
    program, units = bundled("resnet20")
    selection = select((program, units), choice_of(pattern, of="macs"), 1.7)
    fully_connected = "linear.weight" if "linear.weight" in program.parameters else "fc.weight"
    for name, mask in selection.masks.items():
        if mask.dim() == 4:
            column = mask.any(0)
            spread = (1, 2) if pattern == "shape:channel" else (0,)
            kept = column.sum(dim=spread)
            live = column.any(dim=spread)
            n = column[:, 0, 0].numel() if spread == (0,) else 9
            limit = int(column.flatten(1).any(1).sum()) if spread == (0,) else n
            assert (kept[live] == limit).all(), name
    if pattern == "shape:position":
        assert fully_connected not in selection.masks


def test_rounding_keeps_multiples_of_columns(bundled: Bundled) -> None:
    program, units = bundled("resnet20")
    selection = select((program, units), choice_of("shape", round_to=8), 3.0)
    assert selection.ratio >= 3.0
    counts = {name: rows_and_columns(mask, 0)[1] for name, mask in selection.masks.items() if mask.dim() == 4}
    assert counts and all(n % 8 == 0 or name == "conv1.weight" for name, n in counts.items())
    free = select((program, units), choice_of("shape"), 3.0)
    loose = [rows_and_columns(mask, 0)[1] for mask in free.masks.values() if mask.dim() == 4]
    assert any(n % 8 for n in loose), "the twin: without rounding they are not"


@pytest.mark.parametrize("floor", [0.1, 0.4])
def test_floors_hold_for_columns(bundled: Bundled, floor: float) -> None:
    program, units = bundled("resnet20")
    selection = select((program, units), choice_of("shape", floor=floor), 1.9)
    for mask in (mask for mask in selection.masks.values() if mask.dim() == 4):
        assert rows_and_columns(mask, 0)[1] >= floor * mask[0].numel()


def test_groups_share_their_columns() -> None:
    traced = trace(
        lambda net, x: net.out(net.grouped(net.one(x).relu()).relu()),
        (2, 5, 5),
        one=nn.Conv2d(2, 8, 1),
        grouped=nn.Conv2d(8, 4, 3, groups=2),
        out=nn.Conv2d(4, 2, 1),
    )
    tensors = {name: p.detach().clone() for name, p in traced.program.parameters.items()}
    tensors["grouped.weight"][:, 1] *= 1e-4
    selection = make_selector(traced.program, traced.units, NO_FLOOR).select(tensors, 1.5)
    assert not selection.masks["grouped.weight"][:, 1].any()
    assert not selection.masks["one.weight"][[1, 5]].any(), "the same offset of both groups is unread"
    assert selection.masks["one.weight"][[0, 2, 3, 4, 6, 7]].any()


def test_transposed_convolutions_have_columns_too() -> None:
    traced = trace(
        lambda net, x: net.out(net.up(x)),
        (3, 5, 5),
        up=nn.ConvTranspose2d(3, 6, 2),
        out=nn.Conv2d(6, 2, 1),
    )
    selection = select((traced.program, traced.units), NO_FLOOR, 2.0)
    assert selection.kept == counted(traced.program, selection.masks, "params")
    mask = selection.masks["up.weight"]
    assert (mask == mask.any(dim=1, keepdim=True) & mask.any(dim=(0, 2, 3), keepdim=True)).all()


def test_what_cannot_be_reached_names_what_can(bundled: Bundled) -> None:
    with pytest.raises(RatioError, match="largest feasible") as caught:
        select(bundled("lenet5"), choice_of("shape"), 10_000.0)
    largest = float(str(caught.value).split("largest feasible is ")[1].split("x")[0])
    assert select(bundled("lenet5"), choice_of("shape"), 0.97 * largest).ratio >= 0.97 * largest


def test_units_take_what_columns_cannot(bundled: Bundled) -> None:
    given = bundled("lenet5")
    with pytest.raises(RatioError, match="or cut whole units as well: --pattern filter"):
        select(given, choice_of("shape", floor=0.6), 6.0)
    assert select(given, choice_of("filter+shape", floor=0.3), 6.0).ratio >= 6.0


def test_nothing_with_columns_is_an_error() -> None:
    bare = trace(lambda net, x: net.a(x), (4, 3, 3), a=nn.BatchNorm2d(4))
    with pytest.raises(PatternError, match="shape: no weight in scope has columns that can be left out"):
        make_selector(bare.program, bare.units, choice_of("shape"))


def test_random_columns_follow_the_seed(bundled: Bundled) -> None:
    choice = choice_of("shape", method="random", seed=1)
    first, again = (select(bundled("lenet5"), choice, 3.0) for _ in range(2))
    other = select(bundled("lenet5"), asking(choice, seed=2), 3.0)
    assert all(torch.equal(first.masks[name], again.masks[name]) for name in first.masks)
    assert any(not torch.equal(first.masks[name], other.masks[name]) for name in first.masks if name in other.masks)


@pytest.mark.parametrize("pattern", ["shape", "filter+shape", "channel", "unstructured", "block:1x4"])
def test_a_second_choice_counts_what_the_first_one_cut(bundled: Bundled, pattern: str) -> None:
    program, units = bundled("lenet5")
    for first, of in (("shape", "params"), ("channel", "macs"), ("unstructured", "params"), (pattern, "params")):
        before = make_selector(program, units, choice_of(first, method="random")).select(program.parameters, 2.0).masks
        selector = make_selector(program, units, choice_of(pattern, of=of))
        selection = selector.select(program.parameters, 5.0, before)
        merged = merge_masks(before, selection.masks)
        keep = kept_units(units, merged, program.parameters)
        got = selector.dense / selector.kept_cost(merged, keep)
        assert got == pytest.approx(selection.ratio, rel=5e-3), f"{pattern} after {first}"
        assert 5.0 * (1 - 1e-9) <= got <= 5.0 * 1.02, f"{pattern} after {first}"


def test_twin_a_selector_that_is_not_told_cuts_too_much(bundled: Bundled) -> None:
    program, units = bundled("lenet5")
    before = make_selector(program, units, choice_of("channel", method="random")).select(program.parameters, 2.0).masks
    selector = make_selector(program, units, choice_of("channel"))
    merged = merge_masks(before, selector.select(program.parameters, 3.0).masks)
    got = selector.dense / selector.kept_cost(merged, kept_units(units, merged, program.parameters))
    assert got > 3.0 * 1.05


def test_a_ratio_that_was_reached_before_cuts_nothing_more(bundled: Bundled) -> None:
    program, units = bundled("lenet5")
    for pattern in ("channel", "shape", "unstructured", "channel+shape"):
        selector = make_selector(program, units, choice_of(pattern))
        before = selector.select(program.parameters, 4.0).masks
        again = selector.select(program.parameters, 2.0, before).masks
        merged = merge_masks(before, again)
        assert all(torch.equal(merged[name], before[name]) for name in before)
        assert {name for name, mask in again.items() if not mask.all()} <= set(before)
