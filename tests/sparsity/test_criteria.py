"""Criteria against their formulas, and that each can tell what plain magnitude cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.asking.prune import PruneSettings
from compressor.asking.score import CRITERIA, NEEDS_UNITS
from compressor.errors import PatternError, UsageError
from compressor.program import find_layers
from compressor.sparsity import Choice, Moments, make_selector, rate, score_units
from compressor.sparsity.criteria import activation, bn, fisher, fpgm, l1, l2, taylor
from compressor.sparsity.scores import normalise_lamp
from compressor.sparsity.select_units import UnitSelector
from tests.axes.tracing import Traced, trace

W = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
G = Moments(torch.tensor([[0.1, 0.2], [4.0, 9.0]]), torch.tensor([[0.01, 0.04], [16.0, 81.0]]))


def normed() -> Traced:
    return trace(
        lambda net, x: net.two(net.norm(net.one(x)).relu()),
        (1, 6, 6),
        one=nn.Conv2d(1, 4, 3),
        norm=nn.BatchNorm2d(4),
        two=nn.Conv2d(4, 2, 3),
    )


def weights(traced: Traced) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in traced.program.parameters.items()}


def scores(
    traced: Traced, criterion: str, tensors: dict[str, Tensor], moments: dict[str, Moments] | None = None
) -> list:
    rated = rate(criterion, tensors, find_layers(traced.program), traced.units, moments)
    return score_units(traced.units, rated, lambda name, dim: (name, dim) != ("two.weight", 1)).tolist()


def test_weight_scores_are_their_formulas() -> None:
    assert l1(W).tolist() == [[1, 2], [0.5, 0]]
    assert l2(W).tolist() == [[1, 4], [0.25, 0]]
    assert torch.allclose(taylor(W, G), torch.tensor([[0.1, 0.4], [2.0, 0.0]]))
    assert torch.allclose(fisher(W, G), torch.tensor([[0.005, 0.08], [2.0, 0.0]]))
    assert activation(W, torch.tensor([[4.0, 0.5]])).tolist() == [[4, 2], [1, 0]]
    assert bn(torch.tensor([-3.0, 1.0])).tolist() == [3, 1]


def test_fpgm_is_the_sum_of_distances_along_the_filters() -> None:
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    expected = [5 + 1, 5 + 18**0.5, 1 + 18**0.5]
    assert fpgm(weight, 0).tolist() == pytest.approx(expected)
    assert fpgm(weight.T, 1).tolist() == pytest.approx(expected), "a transposed convolution has its filters behind"


@pytest.mark.parametrize("criterion", ["l1", "taylor", "fisher"])
def test_what_a_selector_squares_is_the_score(criterion: str) -> None:
    traced = normed()
    tensors = weights(traced)
    moments = {name: Moments(torch.rand_like(t), torch.rand_like(t)) for name, t in tensors.items()}
    rated = rate(criterion, tensors, find_layers(traced.program), traced.units, moments)
    for name, tensor in tensors.items():
        score = (
            l1(tensor) if criterion == "l1" else {"taylor": taylor, "fisher": fisher}[criterion](tensor, moments[name])
        )
        assert torch.allclose(rated[name].square(), score)


def test_what_reaches_a_weight_overrules_its_size() -> None:
    traced = normed()
    tensors = weights(traced)
    energies = {"two.weight": torch.tensor([1.0, 1.0, 1e-6, 1.0], dtype=torch.float64).reshape(1, 4, 1, 1)}
    rated = rate("activation", tensors, find_layers(traced.program), traced.units, None, energies)
    assert torch.allclose(rated["two.weight"].square(), tensors["two.weight"].square() * energies["two.weight"].float())
    assert rated["norm.weight"] is tensors["norm.weight"], "what has no input keeps its own size"
    choice = Choice(
        PruneSettings(ratio=1.3, method="magnitude", score="activation", floor=0.0, round_to=1, pattern="channel")
    )
    selector = make_selector(traced.program, traced.units, choice)
    keep = selector.select(rated, 1.3).masks["one.weight"].flatten(1).any(1)
    assert keep.tolist() == [True, True, False, True], "whatever made it, nothing that reads it loses anything"


@pytest.mark.parametrize(
    ("stored", "held"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)],
)
def test_inputs_beyond_what_float16_holds_are_still_told_apart(stored: torch.dtype, held: torch.dtype) -> None:
    traced = normed()
    tensors = {name: tensor.to(stored) for name, tensor in weights(traced).items()}
    energies = {"two.weight": torch.tensor([1e12, 1e13, 1e14, 1e15], dtype=torch.float64).reshape(1, 4, 1, 1)}
    rated = rate("activation", tensors, find_layers(traced.program), traced.units, None, energies)["two.weight"]
    assert rated.dtype is held and bool(torch.isfinite(rated).all())
    assert torch.allclose(
        rated.float(), tensors["two.weight"].float().abs() * energies["two.weight"].float().sqrt(), 1e-2
    )


def test_l2_hands_the_weights_through() -> None:
    traced = normed()
    rated = rate("l2", traced.program.parameters, find_layers(traced.program), traced.units)
    assert all(rated[name] is parameter for name, parameter in traced.program.parameters.items())


def test_gradients_overrule_magnitude() -> None:
    traced = normed()
    tensors = weights(traced)
    tensors["one.weight"] = torch.ones(4, 1, 3, 3)
    tensors["one.weight"][2] = 0.1
    moments = {name: Moments(torch.zeros_like(t), torch.zeros_like(t)) for name, t in tensors.items()}
    moments["one.weight"].absolute[2] = 1.0
    assert int(np.argmin(scores(traced, "l2", {"one.weight": tensors["one.weight"]}))) == 2
    assert int(np.argmax(scores(traced, "taylor", {"one.weight": tensors["one.weight"]}, moments))) == 2


def test_bn_looks_at_the_scales_and_at_nothing_else() -> None:
    traced = normed()
    tensors = weights(traced)
    tensors["norm.weight"] = torch.tensor([0.5, -2.0, 0.1, 1.0])
    tensors["one.weight"][2] = 100.0
    assert np.argsort(scores(traced, "bn", tensors)).tolist() == [2, 0, 3, 1]


def test_filters_without_a_norm_keep_their_weights_as_score() -> None:
    traced = trace(
        lambda net, x: net.three(net.two(net.norm(net.one(x)).relu()).relu()),
        (1, 8, 8),
        one=nn.Conv2d(1, 4, 3), norm=nn.BatchNorm2d(4), two=nn.Conv2d(4, 3, 3), three=nn.Conv2d(3, 2, 3),
    )  # fmt: skip
    rated = rate("bn", weights(traced), find_layers(traced.program), traced.units)
    assert set(rated) == {"norm.weight", "two.weight"}


def test_bn_without_batch_norm_is_a_pattern_error() -> None:
    traced = trace(lambda net, x: net.two(net.one(x)), (1, 6, 6), one=nn.Conv2d(1, 4, 3), two=nn.Conv2d(4, 2, 3))
    with pytest.raises(PatternError, match="--score bn: there is no batch norm with a scale; use l1, l2"):
        rate("bn", weights(traced), find_layers(traced.program), traced.units)


def test_fpgm_gives_the_filter_that_others_can_replace_the_least() -> None:
    traced = normed()
    tensors = weights(traced)
    tensors["one.weight"] = torch.stack([torch.full((1, 3, 3), v) for v in (1.0, 2.1, 3.0, 9.0)])
    middle = scores(traced, "fpgm", {"one.weight": tensors["one.weight"]})
    assert int(np.argmin(middle)) in (1, 2) and int(np.argmax(middle)) == 3
    assert int(np.argmin(scores(traced, "l2", {"one.weight": tensors["one.weight"]}))) == 0


def test_gradient_criteria_without_gradients_are_a_usage_error() -> None:
    traced = normed()
    for criterion in ("taylor", "fisher"):
        with pytest.raises(UsageError, match=f"--score {criterion}: needs gradients, and so training data"):
            rate(criterion, weights(traced), find_layers(traced.program), traced.units)
    with pytest.raises(UsageError, match="--score activation: needs what reaches each weight, and so training data"):
        rate("activation", weights(traced), find_layers(traced.program), traced.units)


def test_an_unknown_criterion_names_the_known() -> None:
    traced = normed()
    with pytest.raises(UsageError, match=f"--score hessian: choose one of {', '.join(CRITERIA)}"):
        rate("hessian", weights(traced), find_layers(traced.program), traced.units)


@pytest.mark.parametrize("pattern", ["channel", "filter"])
@pytest.mark.parametrize("criterion", sorted(NEEDS_UNITS))
def test_a_score_of_filters_is_not_mixed_with_the_layers_that_read_them(criterion: str, pattern: str) -> None:
    """The spread of what is ranked is that of the criterion, whatever the pattern."""
    traced = normed()
    tensors = weights(traced)
    tensors["norm.weight"] = torch.tensor([0.2, 1.5, 0.9, 0.4])
    rated = rate(criterion, tensors, find_layers(traced.program), traced.units)
    choice = Choice(
        PruneSettings(ratio=2.0, method="magnitude", pattern=pattern, score=criterion, floor=0.0, round_to=1)
    )
    selector = make_selector(traced.program, traced.units, choice)
    assert isinstance(selector, UnitSelector)
    expected = fpgm(tensors["one.weight"], 0) if criterion == "fpgm" else bn(tensors["norm.weight"])
    of_filter = traced.units.axes["one.weight", 0]
    got = selector.ranking(rated, {})[0][of_filter]
    lamp = normalise_lamp(expected.double().numpy())
    assert got / got.max() == pytest.approx(lamp / lamp.max())
