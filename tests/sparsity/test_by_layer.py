"""Shares, thresholds and sensitivity curves: what each layer keeps, with units and with single weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.asking import Sensitivity
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.errors import PatternError, RatioError, UsageError
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import Choice, Selection, apply_masks, make_selector
from compressor.sparsity.by_layer import Losses
from tests.choices import asking, choice_of

UNITS = choice_of("channel", floor=0.0)
WEIGHTS = choice_of("unstructured")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(10, 20), nn.Linear(20, 12)
        self.three, self.out = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(x).relu())
        return self.out(x + self.three(x).relu())


@pytest.fixture(scope="module")
def net() -> Program:
    torch.manual_seed(0)
    return capture(Net(), [InputSpec("x", (None, 10))])


def select(net: Program, choice: Choice, ratio: float = 1.0, masks: dict[str, Tensor] | None = None) -> Selection:
    return make_selector(net, find_units(net), choice).select(net.parameters, ratio, masks)


def kept_filters(selection: Selection, name: str) -> int:
    mask = selection.masks.get(f"{name}.weight")
    return 20 if mask is None else int(mask.any(dim=1).sum())  # without a mask the layer is whole


def kept_weights(selection: Selection, name: str) -> int:
    return int(selection.masks[f"{name}.weight"].sum())


def scan(pattern: str = "unstructured", **curves: tuple[tuple[float, float], ...]) -> Sensitivity:
    return Sensitivity("accuracy", 1.0, 100, pattern, curves)


CALM = ((0.5, 1.0), (0.9, 0.9))
TOUCHY = ((0.1, 0.9), (0.5, 0.5))


def test_a_share_is_kept_of_each_width_and_nothing_else_is_cut(net: Program) -> None:
    selection = select(net, asking(UNITS, layers=(("one", 0.25), ("two", 0.5), ("three", 0.5))))
    assert [kept_filters(selection, name) for name in ("one", "two", "three")] == [5, 6, 6]
    alone = select(net, asking(UNITS, layers=(("one", 0.25),)))
    assert kept_filters(alone, "one") == 5 and "three.weight" not in alone.masks


def test_the_weakest_filters_are_the_ones_that_go(net: Program) -> None:
    changed = net.clone()
    with torch.no_grad():
        for unit in range(5):
            changed.parameters["one.weight"][unit] *= 0.01
            changed.parameters["two.weight"][:, unit] *= 0.01
    selection = select(changed, asking(UNITS, layers=(("one", 0.75),)))
    assert selection.masks["one.weight"].any(dim=1).tolist() == [False] * 5 + [True] * 15


def test_a_share_of_single_weights(net: Program) -> None:
    selection = select(net, asking(WEIGHTS, layers=(("one", 0.1), ("o*", 0.5), ("one", 0.2))))
    assert kept_weights(selection, "one") == 40, "of two that match, the later one counts"
    assert kept_weights(selection, "out") == 18 and kept_weights(selection, "two") == 240


@pytest.mark.parametrize("choice", [UNITS, WEIGHTS])
def test_with_a_ratio_the_rest_shares_what_is_left(net: Program, choice: Choice) -> None:
    selection = select(net, asking(choice, layers=(("one", 0.8),)), 2.0)
    kept = kept_filters(selection, "one") / 20 if choice is UNITS else kept_weights(selection, "one") / 200
    assert kept == 0.8 and 2.0 <= selection.ratio < 2.2


def test_a_ratio_that_the_shares_forbid_is_refused(net: Program) -> None:
    with pytest.raises(RatioError, match="the largest feasible is"):
        select(net, asking(WEIGHTS, layers=(("one", 0.8), ("two", 0.8))), 20.0)


def test_layers_of_one_width_must_agree(net: Program) -> None:
    with pytest.raises(UsageError, match="--layer: two, three share one width and keep the same filters"):
        select(net, asking(UNITS, layers=(("two", 0.5), ("three", 0.25))))


def test_what_is_pinned_cannot_be_named(net: Program) -> None:
    with pytest.raises(PatternError, match="--layer out: nothing there can be cut by --pattern channel in this scope"):
        select(net, asking(UNITS, layers=(("out", 0.5),)))
    with pytest.raises(UsageError, match="--quality conv9: matches no layer"):
        select(net, asking(WEIGHTS, quality=(("conv9", 0.5),)))


def test_shares_are_rounded_up_to_multiples(net: Program) -> None:
    selection = select(net, asking(UNITS, layers=(("one", 0.25),), round_to=4))
    assert kept_filters(selection, "one") == 8


@pytest.mark.parametrize("threshold", [0.3, 1.0, 1.6])
def test_a_threshold_cuts_what_is_below_it_in_standard_deviations(net: Program, threshold: float) -> None:
    selection = select(net, asking(WEIGHTS, quality=(("*", threshold),)))
    for name in ("one", "two", "three", "out"):
        weight = net.parameters[f"{name}.weight"].detach()
        over = int((weight.abs() > threshold * weight.square().mean().sqrt()).sum())
        assert kept_weights(selection, name) == max(over, 1)
        assert not weight[~selection.masks[f"{name}.weight"]].abs().gt(threshold * weight.square().mean().sqrt()).any()


def test_the_next_threshold_looks_at_what_is_left(net: Program) -> None:
    choice = asking(WEIGHTS, quality=(("*", 0.8),))
    first = select(net, choice)
    second = select(net, choice, masks=first.masks)
    assert kept_weights(second, "one") < kept_weights(first, "one")
    assert not (second.masks["one.weight"] & ~first.masks["one.weight"]).any(), "what is cut stays cut"


@pytest.mark.parametrize("pattern", ["channel", "filter"])
def test_the_next_threshold_on_filters_is_that_of_the_network_without_the_cut_ones(net: Program, pattern: str) -> None:
    """Round after round, the masked network loses what the compacted one would."""
    choice = asking(UNITS, pattern=pattern, quality=(("*", 0.95),))
    first = select(net, choice)
    masked = net.clone().replace(masks=first.masks)
    apply_masks(masked.module, first.masks)
    small, _ = compact(masked)
    second, afresh = select(masked, choice, masks=first.masks), select(small, choice)
    for name in ("one", "two", "three"):
        n_left = small.parameters[f"{name}.weight"].shape[0]
        mask = afresh.masks.get(f"{name}.weight")
        expected = n_left if mask is None else int(mask.any(dim=1).sum())
        assert kept_filters(second, name) == expected < kept_filters(first, name)


def test_a_threshold_cuts_filters_by_their_root_mean_square(net: Program) -> None:
    changed = net.clone()
    with torch.no_grad():
        changed.parameters["one.weight"][3] *= 0.1
        changed.parameters["one.bias"][3] *= 0.1
        changed.parameters["two.weight"][:, 3] *= 0.1
    selection = select(changed, asking(UNITS, quality=(("one", 0.4),)))
    assert selection.masks["one.weight"].any(dim=1).tolist() == [i != 3 for i in range(20)]
    assert "three.weight" not in selection.masks


def test_a_calm_layer_gives_more_than_a_touchy_one(net: Program) -> None:
    for choice, kept, sizes in ((WEIGHTS, kept_weights, (200, 240)), (UNITS, kept_filters, (20, 12))):
        pattern = choice.asked.pattern.text
        found = scan(pattern, one=CALM, two=TOUCHY, three=TOUCHY, out=TOUCHY)
        sensitive = select(net, asking(choice, allocation="sensitivity", sensitivity=found), 1.7)
        assert 1.7 <= sensitive.ratio < 1.95
        one, two = (kept(sensitive, name) / size for name, size in zip(("one", "two"), sizes, strict=True))
        assert one < 0.6 and two > one + 0.2
        turned = scan(pattern, one=TOUCHY, two=CALM, three=CALM, out=CALM)
        other = select(net, asking(choice, allocation="sensitivity", sensitivity=turned), 1.7)
        assert kept(other, "one") > kept(sensitive, "one")


def test_a_tolerated_loss_decides_every_layer(net: Program) -> None:
    found = scan(one=CALM, two=TOUCHY, three=TOUCHY, out=TOUCHY)
    selection = select(net, asking(WEIGHTS, allocation="sensitivity", sensitivity=found, max_loss=0.05))
    assert kept_weights(selection, "one") == pytest.approx(200 * (1 - 0.7), abs=1)
    assert kept_weights(selection, "two") == pytest.approx(240 * (1 - 0.05), abs=1)
    nothing = select(net, asking(WEIGHTS, allocation="sensitivity", sensitivity=found, max_loss=0.0))
    assert kept_weights(nothing, "one") == 100 and kept_weights(nothing, "two") == 240


def test_a_layer_that_was_not_scanned_is_named(net: Program) -> None:
    with pytest.raises(UsageError, match="--sensitivity: two is not in the scan; scan it too"):
        select(net, asking(WEIGHTS, allocation="sensitivity", sensitivity=scan(one=CALM)), 2.0)
    kept = asking(WEIGHTS, allocation="sensitivity", sensitivity=scan(one=CALM), keep=("two", "three", "out"))
    assert kept_weights(select(net, kept, 1.2), "one") < 200


def test_losses_never_fall_and_take_the_worst_of_a_width() -> None:
    found = scan(a=((0.2, 0.8), (0.5, 0.95), (0.9, 0.1)), b=((0.5, 0.3), (0.6, 0.2)))
    a, both = Losses.of(found, ["a"]), Losses.of(found, ["a", "b"])
    assert (np.diff(a.at_grid) >= 0).all() and a.at(np.array([0.2, 0.5])).tolist() == pytest.approx([0.2, 0.2])
    assert both.at(np.array([0.5]))[0] == pytest.approx(0.7)
    assert a.removable(0.1) == pytest.approx(0.1) and a.removable(0.0) == 0.0
