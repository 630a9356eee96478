"""The hooks against the equations they implement, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.asking import Admm
from compressor.axes import find_units
from compressor.errors import UsageError
from compressor.program import Program
from compressor.pruning.hooks import AdmmHook, MaskHook, Penalties
from compressor.sparsity import Choice, Selection, Selector, make_selector

RATIO = 3.0
EVERY = Admm().updates
"""Steps of a stage in which every step is followed by an update."""


def told(hook: AdmmHook) -> Mapping[str, float]:
    """What it tells after one more step."""
    hook.on_update()
    return hook.on_epoch(1)


def selector_of(program: Program, pattern: str = "channel") -> Selector:
    return make_selector(program, find_units(program), Choice(pattern))


class LiteralAdmm:
    """ADMM as the paper writes it, per tensor, without any caching: Zhang et al. 2018, eq. 4-9."""

    def __init__(self, weights: Mapping[str, Tensor], selector: Selector, settings: Admm) -> None:
        self.selector, self.settings, self.rho = selector, settings, settings.rho
        self.z = self.project({name: w.clone() for name, w in weights.items()})
        self.u = {name: torch.zeros_like(z) for name, z in self.z.items()}

    def project(self, lifted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        masks = self.selector.select(lifted, RATIO).masks
        return {name: torch.where(mask, lifted[name], 0.0) for name, mask in masks.items()}

    def penalty_gradient(self, name: str, weight: Tensor) -> Tensor:
        return self.rho * (weight - self.z[name] + self.u[name])

    def update(self, weights: Mapping[str, Tensor]) -> float:
        lifted = {name: w + self.u.get(name, torch.zeros_like(w)) for name, w in weights.items()}
        z = {**{name: lifted[name] for name in self.z}, **self.project(lifted)}
        self.u = {name: self.u[name] + weights[name] - z[name] for name in z}
        self.z = z
        before, self.rho = self.rho, min(self.rho * self.settings.course()[0], self.settings.course()[1])
        self.u = {name: u * before / self.rho for name, u in self.u.items()}  # the dual variable ρU stays what it is
        away = sum(float((weights[name] - z[name]).square().sum()) for name in z)
        return (away / sum(float(weights[name].square().sum()) for name in z)) ** 0.5


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
    settings = Admm(rho=0.01, rho_growth=1.5, rho_max=0.02)
    selector = selector_of(tiny, pattern)
    hook = AdmmHook(tiny.module, selector, RATIO, settings, EVERY)
    literal = LiteralAdmm(weights_of(tiny.module), selector, settings)
    for epoch in range(1, 5):
        drift(tiny.module, epoch)
        for parameter in tiny.module.parameters():
            parameter.grad = torch.ones_like(parameter)
        hook.on_gradients()
        for name, parameter in tiny.module.named_parameters():
            extra = literal.penalty_gradient(name, parameter.detach()) if name in literal.z else 0.0
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, 1 + extra * torch.ones(()), atol=1e-7), name
        expected = literal.update(weights_of(tiny.module))
        values = told(hook)
        assert values["residual"] == pytest.approx(expected, rel=1e-5)
        state = hook.state_dict()
        assert state["rho"] == pytest.approx(literal.rho)
        for name in literal.z:
            assert torch.allclose(state["z"][name], literal.z[name], atol=1e-7), name
            assert torch.allclose(state["u"][name], literal.u[name], atol=1e-6), name


def test_tensors_may_have_a_penalty_of_their_own(tiny: Program) -> None:
    settings = Admm(rho=0.01, rho_growth=2.0)
    selector = selector_of(tiny, "unstructured")
    hook = AdmmHook(tiny.module, selector, RATIO, settings, EVERY, Penalties(0.01, 2.0, 1.0, {"hidden.weight": 5.0}))
    literal = LiteralAdmm(weights_of(tiny.module), selector, settings)
    for parameter in tiny.module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    hook.on_gradients()
    for name in literal.z:
        gradient = tiny.parameters[name].grad
        expected = literal.penalty_gradient(name, tiny.parameters[name].detach())
        assert gradient is not None
        assert torch.allclose(gradient, expected * (5.0 if name == "hidden.weight" else 1.0), atol=1e-7), name
    assert literal.penalty_gradient("hidden.weight", tiny.parameters["hidden.weight"].detach()).any()


def test_what_was_cut_before_stays_cut_in_z(tiny: Program) -> None:
    selector = selector_of(tiny, "unstructured")
    before = {"hidden.weight": torch.rand(tiny.parameters["hidden.weight"].shape) < 0.5}
    hook = AdmmHook(tiny.module, selector, RATIO, Admm(), EVERY, masks=before)
    told(hook)
    z = hook.state_dict()["z"]
    assert not z["hidden.weight"][~before["hidden.weight"]].any()
    unaware = AdmmHook(tiny.module, selector, RATIO, Admm(), EVERY).state_dict()["z"]
    assert unaware["hidden.weight"][~before["hidden.weight"]].any(), "the twin"


def test_the_first_z_is_the_projection_of_the_weights(tiny: Program) -> None:
    selector = selector_of(tiny)
    masks = selector.select(tiny.parameters, RATIO).masks
    state = AdmmHook(tiny.module, selector, RATIO, Admm(), EVERY).state_dict()
    assert set(state["z"]) == set(masks)
    for name, mask in masks.items():
        assert torch.equal(state["z"][name], tiny.parameters[name].detach() * mask)
        assert not state["u"][name].any()


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
    hook = AdmmHook(module, Alternating(), RATIO, Admm(rho=1.0, rho_growth=1.0), EVERY)
    weight = module.weight.detach().clone()
    told(hook)  # now the bias is cut and the weight is whole: its Z is W + U, its U becomes 0
    state = hook.state_dict()
    assert set(state["z"]) == {"weight", "bias"}
    assert torch.equal(state["z"]["weight"], weight) and not state["u"]["weight"].any()
    assert not state["z"]["bias"].any() and torch.equal(state["u"]["bias"], module.bias.detach())


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
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, Admm(updates=50, rho=0.1), 4)
    told_rhos = [told(hook)["rho"] for _ in range(4)]
    assert told_rhos[0] == 0.1 and told_rhos[-1] == pytest.approx(1.0), "and the penalty still spans its range"


def test_rho_stops_growing_at_its_maximum(tiny: Program) -> None:
    hook = AdmmHook(tiny.module, selector_of(tiny), RATIO, Admm(rho=0.5, rho_growth=3.0, rho_max=1.0), EVERY)
    assert [told(hook)["rho"] for _ in range(3)] == [0.5, 1.0, 1.0]


def test_it_is_finished_when_the_weights_lie_in_the_set(tiny: Program) -> None:
    selector = selector_of(tiny)
    hook = AdmmHook(tiny.module, selector, RATIO, Admm(), EVERY)
    assert not hook.finished()
    with torch.no_grad():
        for name, z in hook.state_dict()["z"].items():
            tiny.parameters[name].copy_(z)
    assert told(hook)["residual"] == 0.0 and hook.finished()


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
    assert a["rho"] == b["rho"] and all(torch.equal(a["u"][name], b["u"][name]) for name in a["u"])


def test_masks_tell_what_they_cut(tiny: Program) -> None:
    masks = selector_of(tiny).select(tiny.parameters, RATIO).masks
    n_cut = sum(int((~mask).sum()) for mask in masks.values())
    assert n_cut > 0
    assert MaskHook(tiny.module, masks).on_epoch(1) == {"sparsity": n_cut / tiny.n_parameters}
    assert MaskHook(tiny.module, {}).on_epoch(1) == {}, "a dense model has no such curve"


def test_admm_tells_what_z_would_cut(tiny: Program) -> None:
    selector = selector_of(tiny, "unstructured")
    hook = AdmmHook(tiny.module, selector, RATIO, Admm(), EVERY)
    first = hook.on_epoch(1)["sparsity"]
    assert first == pytest.approx(1 - 1 / RATIO, abs=0.02)
    zeros = sum(int((z == 0).sum()) for z in hook.state_dict()["z"].values())
    assert first == zeros / tiny.n_parameters


def test_what_was_cut_before_counts_where_z_does_not_reach() -> None:
    """Four weights that Z cuts, and two biases."""
    sparsities = [
        AdmmHook(nn.Linear(2, 2), Alternating(), RATIO, Admm(), EVERY, masks=masks).on_epoch(1)["sparsity"]
        for masks in ({}, {"bias": torch.tensor([False, True])}, {"weight": torch.zeros(2, 2, dtype=torch.bool)})
    ]
    assert sparsities == [4 / 6, 5 / 6, 4 / 6]


def train(module: nn.Module, hooks: list[MaskHook], optimizer: torch.optim.Optimizer) -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        optimizer.zero_grad()
        x = torch.randn(8, 1, 8, 8, generator=random)
        module(x).square().sum().backward()
        for hook in hooks:
            hook.on_gradients()
        optimizer.step()
        for hook in hooks:
            hook.on_update()


def warmed_up(program: Program) -> tuple[torch.optim.Optimizer, dict[str, Tensor]]:
    """An optimizer full of momentum, and masks that are applied afterwards."""
    optimizer = torch.optim.AdamW(program.module.parameters(), lr=1e-2, weight_decay=0.1)
    program.module.train()
    train(program.module, [], optimizer)
    masks = selector_of(program).select(program.parameters, RATIO).masks
    with torch.no_grad():
        for name, mask in masks.items():
            program.parameters[name].mul_(mask)
    return optimizer, masks


def test_masks_hold_against_momentum_and_weight_decay(tiny: Program) -> None:
    optimizer, masks = warmed_up(tiny)
    before = weights_of(tiny.module)
    train(tiny.module, [MaskHook(tiny.module, masks)], optimizer)
    for name, mask in masks.items():
        assert not tiny.parameters[name].detach()[~mask].any(), name
        assert not torch.equal(tiny.parameters[name][mask], before[name][mask]), "the others still learn"


def test_twin_without_the_hook_the_cut_weights_revive(tiny: Program) -> None:
    optimizer, masks = warmed_up(tiny)
    train(tiny.module, [], optimizer)
    assert all(tiny.parameters[name].detach()[~mask].any() for name, mask in masks.items())


def test_a_hook_without_masks_does_nothing(tiny: Program) -> None:
    hook = MaskHook(tiny.module, {})
    before = weights_of(tiny.module)
    hook.on_gradients()
    hook.on_update()
    assert all(torch.equal(before[name], p) for name, p in tiny.module.named_parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rho": 0.0}, "--rho 0: must be above 0"),
        ({"rho_growth": 0.9}, "--rho-growth 0.9: must be at least 1"),
        ({"rho_max": 1e-4}, "--rho-max 0.0001: must be at least --rho, here 0.001"),
        ({"layer_rho": (("conv1", 0.0),)}, "--layer-rho conv1=0: must be above 0"),
        ({"updates": 0}, "must be at least 1"),
        ({"stages": 0}, "must be at least 1"),
    ],
)
def test_settings_that_cannot_be_meant(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Admm(**changes)  # type: ignore[arg-type]
