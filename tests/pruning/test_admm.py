"""The ADMM hook against the equations it implements, tensor by tensor, and the courses of its penalty."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.asking import Admm, Recipe
from compressor.asking.penalty import Growing, Reading, Steered
from compressor.axes import find_units
from compressor.errors import UsageError
from compressor.program import Program
from compressor.pruning.admm import AdmmHook
from compressor.sparsity import Selection, Selector, make_selector
from tests.choices import choice_of

RATIO = 3.0
EVERY = Admm().updates
"""Steps of a stage in which every step is followed by an update."""
FIXED = Admm(rho=0.01, rho_growth=1.5, rho_max=0.02, hold=1.0)


def told(hook: AdmmHook) -> Mapping[str, float]:
    """What it tells after one more step."""
    hook.on_update()
    return hook.on_epoch(1)


def selector_of(program: Program, pattern: str = "channel") -> Selector:
    return make_selector(program, find_units(program), choice_of(pattern))


class LiteralAdmm:
    """ADMM as the module's docstring says it, per tensor, with Z and U written out."""

    def __init__(self, weights: Mapping[str, Tensor], selector: Selector, settings: Admm) -> None:
        self.selector, self.settings, self.rho, self.step = selector, settings, settings.rho, 0
        self.u = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.kept: dict[str, Tensor] = {}
        self.choose(weights)
        self.gap = self.norm(weights, self.u)

    def choose(self, weights: Mapping[str, Tensor]) -> None:
        lifted = {name: w + self.u[name] for name, w in weights.items()}
        chosen = self.selector.select(lifted, RATIO).masks
        known = [*self.kept, *(name for name in chosen if name not in self.kept)]
        self.kept = {name: chosen.get(name, torch.ones_like(weights[name]).bool()) for name in known}
        self.u = {name: u * ~self.kept[name] if name in self.kept else u for name, u in self.u.items()}

    def z(self, name: str, weight: Tensor) -> Tensor:
        return torch.where(self.kept[name], weight + self.u[name], 0.0)

    def penalty_gradient(self, name: str, weight: Tensor) -> Tensor:
        return self.rho * (weight - self.z(name, weight) + self.u[name])

    def norm(self, weights: Mapping[str, Tensor], lift: Mapping[str, Tensor] | None = None) -> float:
        """‖W − Z‖, or with U lifted."""
        away = [
            weights[name] - self.z(name, weights[name]) + (lift[name] if lift is not None else 0) for name in self.kept
        ]
        return float(sum((a.square().sum() for a in away), torch.zeros(()))) ** 0.5

    def update(self, weights: Mapping[str, Tensor]) -> float:
        self.step += 1
        step = min(-math.log(self.norm(weights, self.u) / self.gap) / 4, 1.0)
        if self.step < self.settings.hold * EVERY:
            self.choose(weights)
        before, course = self.rho, self.settings.course()
        assert isinstance(course, Growing)
        self.rho = min(self.rho * course.growth, course.limit)
        for name in self.kept:
            self.u[name] = self.u[name] + step * (weights[name] - self.z(name, weights[name]))
            self.u[name] *= before / self.rho  # the dual variable ρU stays what it is
        self.gap = self.norm(weights, self.u)
        return self.norm(weights) / sum(float(weights[name].square().sum()) for name in self.kept) ** 0.5


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def drift(module: nn.Module, seed: int) -> None:
    """Move the weights a little, as training would."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.02)


@pytest.mark.parametrize("pattern", ["channel", "filter", "unstructured", "shape", "channel+shape", "block:1x4"])
def test_the_hook_follows_the_equations(tiny: Program, pattern: str) -> None:
    selector = selector_of(tiny, pattern)
    hook = AdmmHook(tiny.module, selector, RATIO, FIXED, EVERY)
    literal = LiteralAdmm(weights_of(tiny.module), selector, FIXED)
    for epoch in range(1, 5):
        drift(tiny.module, epoch)
        with torch.no_grad():  # part of the way, so that U is taken in part
            for name, kept in literal.kept.items():
                tiny.parameters[name].mul_(torch.where(kept, 1.0, 0.7))
        for parameter in tiny.module.parameters():
            parameter.grad = torch.ones_like(parameter)
        hook.on_gradients()
        for name, parameter in tiny.module.named_parameters():
            extra = literal.penalty_gradient(name, parameter.detach()) if name in literal.kept else 0.0
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, 1 + extra * torch.ones(()), atol=1e-7), name
        expected = literal.update(weights_of(tiny.module))
        values = told(hook)
        assert values["residual"] == pytest.approx(expected, rel=1e-5)
        state = hook.state_dict()
        assert state["rho"] == pytest.approx(literal.rho)
        for name, kept in literal.kept.items():
            assert torch.equal(hook.masks[name], kept), name
            assert torch.allclose(state["u"][name], literal.u[name], atol=1e-6), name
        assert any(u.any() for u in state["u"].values())
        away = [tiny.parameters[n].detach() * ~hook.masks[n] + state["u"][n] for n in hook.masks]
        penalty = literal.rho / 2 * sum(float(a.square().sum()) for a in away)
        assert values["penalty"] == pytest.approx(penalty, rel=1e-4), "what the training loss leaves out"


def test_what_stays_is_not_pulled(tiny: Program) -> None:
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, FIXED, EVERY)
    for step in range(3):
        drift(tiny.module, step)
        for parameter in tiny.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        hook.on_gradients()
        for name, kept in hook.masks.items():
            gradient = tiny.parameters[name].grad
            assert gradient is not None and not gradient[kept].any() and gradient[~kept].any()
        hook.on_update()


def test_u_is_taken_as_far_as_the_w_step_got(tiny: Program) -> None:
    """A W that did not follow adds nothing, one that is there adds all of what is left."""
    for share, expected in ((1.5, 0.0), (1.0, 0.0), (0.5, math.log(2) / 4), (1e-3, 1.0)):
        hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, Admm(rho=0.1, rho_growth=1.0), EVERY)
        before = weights_of(tiny.module)
        with torch.no_grad():
            for name, kept in hook.masks.items():
                tiny.parameters[name].mul_(torch.where(kept, 1.0, share))
        told(hook)
        for name, u in hook.state_dict()["u"].items():
            assert torch.allclose(u, expected * share * before[name] * ~hook.masks[name], atol=1e-7)
        with torch.no_grad():
            for name, weight in before.items():
                tiny.parameters[name].copy_(weight)


def test_tensors_may_have_a_penalty_of_their_own(tiny: Program) -> None:
    selector = selector_of(tiny, "unstructured")
    course = Growing(0.01, 2.0, 1.0, {"hidden.weight": 5.0, "out.weight": 0.0})
    hook = AdmmHook(tiny.module, selector, RATIO, FIXED, EVERY, course)
    for parameter in tiny.module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    hook.on_gradients()
    for name, kept in hook.masks.items():
        factor = {"hidden.weight": 5.0, "out.weight": 0.0}.get(name, 1.0)
        gradient = tiny.parameters[name].grad
        assert gradient is not None
        assert torch.allclose(gradient, 0.01 * factor * tiny.parameters[name].detach() * ~kept, atol=1e-7), name


def test_a_penalty_of_nothing_is_plain_training(tiny: Program) -> None:
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, Admm(rho=0.0), EVERY)
    for _ in range(3):
        for parameter in tiny.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        hook.on_gradients()
        assert not any(p.grad.any() for p in tiny.module.parameters() if p.grad is not None)
        assert told(hook)["rho"] == 0.0 and hook.on_epoch(1)["penalty"] == 0.0


def test_what_was_cut_before_stays_cut(tiny: Program) -> None:
    selector = selector_of(tiny, "unstructured")
    before = {"hidden.weight": torch.rand(tiny.parameters["hidden.weight"].shape) < 0.5}
    hook = AdmmHook(tiny.module, selector, RATIO, Admm(), EVERY, masks=before)
    told(hook)
    assert not hook.masks["hidden.weight"][~before["hidden.weight"]].any()
    unaware = AdmmHook(tiny.module, selector, RATIO, Admm(), EVERY).masks
    assert unaware["hidden.weight"][~before["hidden.weight"]].any(), "the twin"


def test_the_first_set_is_that_of_the_weights(tiny: Program) -> None:
    selector = selector_of(tiny)
    masks = selector.select(tiny.parameters, RATIO).masks
    hook = AdmmHook(tiny.module, selector, RATIO, Admm(), EVERY)
    assert set(hook.masks) == set(masks) == set(hook.residuals)
    for name, mask in masks.items():
        assert torch.equal(hook.masks[name], mask) and not hook.state_dict()["u"][name].any()
        weight = tiny.parameters[name].detach()
        away = float((weight * ~mask).norm() / (weight.norm() or 1.0))
        assert hook.residuals[name] == pytest.approx(away)


class Alternating:
    """A selector that constrains one tensor, then another."""

    dense = 2.0

    def __init__(self) -> None:
        self.calls = 0

    notes: tuple[str, ...] = ()

    def select(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor] | None = None
    ) -> Selection:
        name = ("weight", "bias")[self.calls % 2]
        self.calls += 1
        mask = torch.zeros(tensors[name].shape, dtype=torch.bool)
        return Selection({name: mask}, 2.0, 1.0, None)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: np.ndarray) -> float:
        return 1.0


def test_a_tensor_that_is_whole_for_once_stays_constrained_to_itself() -> None:
    module = nn.Linear(2, 2)
    hook = AdmmHook(module, Alternating(), RATIO, Admm(rho=1.0, rho_growth=1.0, hold=1.0), EVERY)
    with torch.no_grad():
        module.weight.mul_(0.5)
    told(hook)  # now the bias is cut and the weight is whole: its Z is W + U, its U becomes 0
    assert set(hook.masks) == {"weight", "bias"}
    assert hook.masks["weight"].all() and not hook.state_dict()["u"]["weight"].any()
    assert not hook.masks["bias"].any() and hook.state_dict()["u"]["bias"].any()


def test_what_is_cut_is_held_after_a_while() -> None:
    """The selector would change its mind at every update; after `hold` it is not asked any more."""
    selector = Alternating()
    hook = AdmmHook(nn.Linear(2, 2), selector, RATIO, Admm(updates=10, hold=0.35), 20)
    held = []
    for _ in range(20):
        hook.on_update()
        held.append(hook.masks["weight"].any().item())
    assert selector.calls == 1 + 3, "at the start, and at the updates after steps 2, 4 and 6"
    assert held == [False, True, True, False, False, *[True] * 15]


def test_updates_are_spread_evenly_over_the_steps(tiny: Program) -> None:
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, Admm(updates=3, rho=0.1, rho_growth=2.0, rho_max=9.0), 10)
    begin = hook.on_epoch(1)
    assert begin["rho"] == 0.1 and 0 < begin["residual"] < 1, "how far W is from its projection at the start"
    rhos = []
    for _ in range(10):
        hook.on_update()
        rhos.append(hook.state_dict()["rho"])
    assert rhos == [0.1] * 3 + [0.2] * 3 + [0.4] * 3 + [0.8], "after steps 4, 7 and 10"


def test_there_are_no_more_updates_than_steps(tiny: Program) -> None:
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, Admm(updates=50, rho=0.1, rho_max=1.0), 4)
    told_rhos = [told(hook)["rho"] for _ in range(4)]
    assert told_rhos[0] == 0.1 and told_rhos[-1] == pytest.approx(1.0), "and the penalty still spans its range"


def test_rho_stops_growing_at_its_maximum(tiny: Program) -> None:
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, Admm(rho=0.5, rho_growth=3.0, rho_max=1.0), EVERY)
    assert [told(hook)["rho"] for _ in range(3)] == [0.5, 1.0, 1.0]


def test_rho_is_steered_unless_its_course_is_given() -> None:
    sgd, adam = Recipe(optimizer="sgd", lr=0.1), Recipe(lr=1e-3)
    assert Admm().course(sgd) == Steered(1e-3, 0.6, 5.0) and Admm(settle=0.3).course(adam) == Steered(1e-3, 0.3, 500.0)
    assert Admm(rho_growth=2.0).course(sgd) == Growing(1e-3, 2.0, 5.0)
    assert Admm(rho_growth=2.0).course(adam) == Growing(1e-3, 2.0, 1.0)
    assert Admm(rho_max=0.1, updates=3).course(adam) == Growing(1e-3, pytest.approx(10.0), 0.1)  # type: ignore[arg-type]


def test_a_steered_penalty_follows_the_plan() -> None:
    course = Steered(0.1, 0.5, limit=10.0)
    on_plan = Reading(done=0.25, left=0.5, left_before=0.5 / (0.5 / 0.48) ** 1, n_updates=100)
    assert course.after(1.0, on_plan) == pytest.approx(2.0), "nothing was done: as fast as it may"
    steady = Reading(done=0.25, left=0.5, left_before=0.5 * 0.5 / 0.48, n_updates=100)
    assert course.after(1.0, steady) == pytest.approx(1.0), "the same decay again leads to the plan"
    assert course.after(1.0, Reading(0.25, 0.5, 0.5 * 0.5 / 0.48 * 0.96, 100)) > 1.0, "too slow"
    assert course.after(1.0, Reading(0.25, 0.2, 0.4, 100)) == 0.5, "ahead of the plan"
    assert course.after(8.0, Reading(0.9, 0.2, 0.3, 100)) == 10.0, "no further than the limit"


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.02), ("sgd", 0.05), ("adam", 3e-3), ("adam", 1e-2)])
def test_whatever_the_optimizer_and_its_rate_the_weights_arrive_and_do_not_swing(
    tiny: Program, optimizer: str, lr: float
) -> None:
    """The residual falls evenly and is gone when it was planned; with fixed penalties it depended on all of this."""
    n_steps, settings = 800, Admm()
    recipe = Recipe(optimizer=optimizer, lr=lr)  # type: ignore[arg-type]
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, settings, n_steps, settings.course(recipe, n_steps))
    parameters = list(tiny.module.parameters())
    kind = torch.optim.Adam(parameters, lr=lr) if optimizer == "adam" else torch.optim.SGD(parameters, lr, momentum=0.9)
    first, random, residuals = hook.residual, torch.Generator().manual_seed(0), list[float]()
    for _ in range(n_steps):
        for parameter in parameters:
            parameter.grad = 1e-2 * torch.randn(parameter.shape, generator=random)
        hook.on_gradients()
        kind.step()
        hook.on_update()
        residuals.append(hook.residual / first)
    assert all(abs(left - max(1 - (i + 1) / 480, 0)) < 0.3 for i, left in enumerate(residuals))
    assert residuals[-1] < 0.05


def test_it_is_finished_when_the_weights_lie_in_the_set_and_z_rests(tiny: Program) -> None:
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, Admm(), EVERY)
    assert not hook.finished()
    with torch.no_grad():
        for name, kept in hook.masks.items():
            tiny.parameters[name].mul_(kept)
    told(hook)
    assert hook.residual == 0.0 and hook.finished()
    hook.on_update()
    drift(tiny.module, 1)
    with torch.no_grad():
        for name, kept in hook.masks.items():
            tiny.parameters[name].mul_(kept)
    assert told(hook)["dual residual"] > 0.005 and hook.residual < 0.005 and not hook.finished(), "Z still moves"


def test_a_hooks_state_continues_another(tiny: Program) -> None:
    selector = selector_of(tiny)
    first = AdmmHook(tiny.module, selector, RATIO, Admm(), 2 * EVERY)
    drift(tiny.module, 1)
    for _ in range(3):
        first.on_update()
    second = AdmmHook(tiny.module, selector, RATIO, Admm(), 2 * EVERY)
    second.load_state_dict(first.state_dict())
    for hook in (first, second):
        drift(tiny.module, 2)
        for parameter in tiny.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        hook.on_gradients()
    a, b = first.state_dict(), second.state_dict()
    assert a["step"] == b["step"] == 3 and first.on_epoch(1) == second.on_epoch(1)
    first.on_update()
    second.on_update()
    assert first.on_epoch(1) == second.on_epoch(1)
    assert a["rho"] == b["rho"] and all(torch.equal(a["u"][name], b["u"][name]) for name in a["u"])


def test_admm_tells_what_z_would_cut(tiny: Program) -> None:
    hook = AdmmHook(tiny.module, selector_of(tiny, "unstructured"), RATIO, Admm(), EVERY)
    first = hook.on_epoch(1)["sparsity"]
    assert first == pytest.approx(1 - 1 / RATIO, abs=0.02)
    assert first == sum(int((~mask).sum()) for mask in hook.masks.values()) / tiny.n_parameters


def test_what_was_cut_before_counts_where_z_does_not_reach() -> None:
    """Four weights that Z cuts, and two biases."""
    sparsities = [
        AdmmHook(nn.Linear(2, 2), Alternating(), RATIO, Admm(), EVERY, masks=masks).on_epoch(1)["sparsity"]
        for masks in ({}, {"bias": torch.tensor([False, True])}, {"weight": torch.zeros(2, 2, dtype=torch.bool)})
    ]
    assert sparsities == [4 / 6, 5 / 6, 4 / 6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rho": -0.1}, "--rho -0.1: must be at least 0"),
        ({"rho": 0.0, "rho_max": 1.0}, "--rho 0: nothing grows from it"),
        ({"rho": 0.0, "layer_rho": (("conv1", 0.1),)}, "--rho 0: nothing grows from it"),
        ({"rho_growth": 0.9}, "--rho-growth 0.9: must be at least 1"),
        ({"rho_max": 1e-4}, "--rho-max 0.0001: must be at least --rho, here 0.001"),
        ({"layer_rho": (("conv1", -1.0),)}, "--layer-rho conv1=-1: must be 0 or more"),
        ({"updates": 0}, "must be at least 1"),
        ({"stages": 0}, "must be at least 1"),
        ({"settle": 0.0}, "--settle 0: must be above 0, at most 1"),
        ({"hold": 1.5}, "--hold 1.5: must be from 0 to 1"),
    ],
)
def test_settings_that_cannot_be_meant(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Admm(**changes)  # type: ignore[arg-type]
