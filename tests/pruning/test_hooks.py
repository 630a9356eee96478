"""Masks in the training loop: what is cut stays cut, and the others still learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.axes import find_units
from compressor.program import Program
from compressor.pruning.hooks import MaskHook
from compressor.sparsity import Selector, make_selector
from tests.choices import choice_of

RATIO = 3.0


def selector_of(program: Program, pattern: str = "channel") -> Selector:
    return make_selector(program, find_units(program), choice_of(pattern))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def test_masks_tell_what_they_cut(tiny: Program) -> None:
    masks = selector_of(tiny).select(tiny.parameters, RATIO).masks
    n_cut = sum(int((~mask).sum()) for mask in masks.values())
    assert n_cut > 0
    assert MaskHook(tiny.module, masks).on_epoch(1) == {"sparsity": n_cut / tiny.n_parameters}
    assert MaskHook(tiny.module, {}).on_epoch(1) == {}, "a dense model has no such curve"


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
