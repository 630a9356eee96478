"""Scores against their formulas, and the mistakes that a score must not make."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compressor.axes import UnitMap, find_units
from compressor.compaction import compact
from compressor.program import Program
from compressor.sparsity import apply_masks, kept_units, make_selector, score_units
from compressor.sparsity.scores import normalise_lamp, random_scores
from tests.axes.tracing import Traced, trace
from tests.choices import choice_of

Bundled = Callable[[str], tuple[Program, UnitMap]]

SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])


def chain() -> Traced:
    return trace(
        lambda net, x: net.two(net.one(x).relu()),
        (1, 6, 6),
        one=nn.Conv2d(1, 4, 3),
        two=nn.Conv2d(4, 2, 3),
    )


@given(st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=12))
def test_lamp_is_its_formula(squares: list[float]) -> None:
    """score(u) = W[u]^2 / sum of W[v]^2 over all v that are not before u in ascending order."""
    given_scores = np.array(squares)
    got = normalise_lamp(given_scores)
    order = np.argsort(given_scores, kind="stable")
    for place, u in enumerate(order):
        rest = sum(given_scores[v] for v in order[place:])
        assert got[u] == pytest.approx(given_scores[u] / rest if rest else 0.0)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=12, unique=True))
def test_lamp_keeps_the_order_and_gives_the_largest_one(squares: list[float]) -> None:
    got = normalise_lamp(np.array(squares))
    assert np.array_equal(np.argsort(got), np.argsort(squares))
    assert got.max() == pytest.approx(1.0)


def test_weights_of_zero_have_the_score_zero_and_never_nan() -> None:
    assert normalise_lamp(np.zeros(6)).tolist() == [0.0] * 6
    traced = chain()
    zero = {name: torch.zeros_like(p) for name, p in traced.program.parameters.items()}
    assert score_units(traced.units, zero, lambda name, dim: True).tolist() == [0.0] * 4


def test_a_filter_whose_weights_sum_to_zero_is_not_dead() -> None:
    traced = chain()
    tensors = {name: p.detach().clone() for name, p in traced.program.parameters.items()}
    tensors["one.weight"] = torch.full((4, 1, 3, 3), 0.1)
    tensors["one.weight"][2, 0] = SOBEL
    scores = score_units(traced.units, tensors, lambda name, dim: name == "one.weight")
    assert tensors["one.weight"][2].sum() == 0 and int(np.argmax(scores)) == 2


def test_unit_scores_are_means_of_normalised_energy() -> None:
    traced = chain()
    tensors = {name: p.detach() for name, p in traced.program.parameters.items()}
    energy = {name: t.double().square() / t.double().square().mean() for name, t in tensors.items()}
    got = score_units(traced.units, tensors, lambda name, dim: True)
    for unit in range(4):
        slices = [energy["one.weight"][unit], energy["one.bias"][unit], energy["two.weight"][:, unit]]
        expected = sum(float(s.sum()) for s in slices) / sum(s.numel() for s in slices)
        assert got[unit] == pytest.approx(expected)


def test_a_unit_of_two_weights_is_their_mean() -> None:
    two = trace(
        lambda net, x: net.two(net.one(x).relu()),
        (1,),
        one=nn.Linear(1, 4, bias=False),
        two=nn.Linear(4, 1, bias=False),
    )
    own = [two.program.parameters[f"{name}.weight"].detach().double().square().flatten() for name in ("one", "two")]
    expected = sum(part / part.mean() for part in own) / 2
    got = score_units(two.units, two.program.parameters, lambda name, dim: True)
    assert got == pytest.approx(expected.numpy(), rel=1e-5)


def test_scale_of_a_layer_does_not_matter() -> None:
    traced = chain()
    tensors = {name: p.detach() for name, p in traced.program.parameters.items()}
    scaled = {**tensors, "two.weight": 1000 * tensors["two.weight"]}
    plain, other = (score_units(traced.units, t, lambda name, dim: True) for t in (tensors, scaled))
    assert np.allclose(plain, other)


def test_the_pattern_filter_looks_at_the_filters_own_weights_only() -> None:
    traced = chain()
    tensors = {name: p.detach().clone() for name, p in traced.program.parameters.items()}
    own = score_units(traced.units, tensors, lambda name, dim: (name, dim) == ("one.weight", 0))
    tensors["two.weight"][:, 1] = 100.0
    assert np.array_equal(own, score_units(traced.units, tensors, lambda name, dim: (name, dim) == ("one.weight", 0)))
    assert int(np.argmax(score_units(traced.units, tensors, lambda name, dim: True))) == 1


def test_random_scores_follow_their_seed() -> None:
    assert np.array_equal(random_scores(5, 1), random_scores(5, 1))
    assert not np.array_equal(random_scores(5, 1), random_scores(5, 2))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("name", ["lenet5", "lenet-300-100", "resnet20"])
def test_the_scores_of_a_masked_network_are_those_of_the_compacted_one(name: str, own: bool, bundled: Bundled) -> None:
    """What is cut is no part of any mean: neither of its tensor's nor of the slices that cross it."""
    program, units = bundled(name)
    masks = make_selector(program, units, choice_of("channel", "macs")).select(program.parameters, 2.0).masks
    masked = program.clone().replace(masks=masks)
    apply_masks(masked.module, masks)
    small, _ = compact(masked)

    def counted(layer: str, dim: int) -> bool:
        return dim == 0 or not own

    gone = ~kept_units(units, masks, masked.parameters)
    before = score_units(units, masked.parameters, counted, masks)
    after = score_units(find_units(small), small.parameters, counted)
    assert gone.any() and np.sort(before[~gone]) == pytest.approx(np.sort(after))
    with_zeros = score_units(units, masked.parameters, counted)
    assert np.sort(with_zeros[~gone]) != pytest.approx(np.sort(after)), "the zeros must matter for this to show it"
