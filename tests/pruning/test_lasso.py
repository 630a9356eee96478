"""Group lasso: the pull against the derivative of its penalty, and that units end at nothing together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.asking import Admm, PruneSettings, Recipe
from compressor.axes import find_units
from compressor.data.arrays import ArraySource
from compressor.program import Program
from compressor.progress import Progress
from compressor.pruning import prune
from compressor.pruning.lasso import HARDEST, LassoHook
from compressor.sparsity import kept_units, make_selector, score_units
from tests.choices import choice_of

RATIO = 3.0


def hook_of(program: Program, n_steps: int = 40, settings: Admm | None = None) -> LassoHook:
    units = find_units(program)
    return LassoHook(
        program.module, units, make_selector(program, units, choice_of("channel")), RATIO, settings or Admm(), n_steps
    )


def pull_of(program: Program, hook: LassoHook) -> dict[str, Tensor]:
    for parameter in program.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    hook.on_gradients()
    return {name: p.grad for name, p in program.parameters.items() if p.grad is not None}


def test_the_pull_is_that_of_the_norm_of_every_unit_that_goes(tiny: Program) -> None:
    """rho times the sum over its units of w / norm, relative to the mean norm; nothing on what stays."""
    hook, units = hook_of(tiny), find_units(tiny)
    norms = np.sqrt(score_units(units, tiny.parameters, lambda name, dim: True))
    gone = ~kept_units(units, hook.masks, tiny.parameters)
    mean = norms[gone].mean()
    pulled = pull_of(tiny, hook)
    assert gone.any()
    for name, parameter in tiny.parameters.items():
        for index in list(np.ndindex(*parameter.shape))[::17]:
            mine = [int(units.axes[name, d][i]) for d, i in enumerate(index) if (name, d) in units.axes]
            force = sum(mean / max(norms[u], 0.1 * mean) for u in mine if u >= 0 and gone[u])
            assert float(pulled[name][index]) == pytest.approx(
                1e-3 * force * float(parameter.detach()[index]), rel=1e-4, abs=1e-9
            )
            assert force <= HARDEST


def test_the_penalty_that_is_told_is_the_one_whose_derivative_pulls(tiny: Program) -> None:
    hook = hook_of(tiny)
    pulled = pull_of(tiny, hook)
    with torch.no_grad():
        for name in pulled:
            tiny.parameters[name].mul_(1.0 + 1e-3)
    after = hook.on_epoch(1)["penalty"]
    with torch.no_grad():
        for name in pulled:
            tiny.parameters[name].mul_((1.0 - 1e-3) / (1.0 + 1e-3))
    slope = (after - hook.on_epoch(1)["penalty"]) / 2e-3
    along = sum(float((pulled[name] * p.detach()).sum()) for name, p in tiny.parameters.items())
    assert slope == pytest.approx(along, rel=1e-2)


def test_units_are_drawn_to_nothing_as_a_whole(tiny: Program) -> None:
    settings = Admm(hold=0.0)
    recipe = Recipe(optimizer="sgd", lr=0.05)
    hook = hook_of(tiny, 800, settings)
    hook._course = settings.course(recipe, 800, hardest=HARDEST)
    optimizer = torch.optim.SGD(tiny.module.parameters(), lr=0.05, momentum=0.9)
    first = hook.residual
    for _ in range(800):
        pull_of(tiny, hook)
        optimizer.step()
        hook.on_update()
    assert hook.residual < 0.02 * first
    units = find_units(tiny)
    gone = ~kept_units(units, hook.masks, tiny.parameters)
    norms = np.sqrt(score_units(units, tiny.parameters, lambda name, dim: True))
    assert norms[gone].max() < 0.02 * norms[~gone].min()


def test_a_run_comes_to_its_ratio_and_goes_on_where_it_was_broken_off(
    tiny: Program, data: ArraySource, tmp_path: Path, break_after: Callable[[int], Progress], stopped: type[Exception]
) -> None:
    recipe = Recipe(epochs=3, batch_size=32, lr=5e-3)
    settings = PruneSettings(
        ratio=2.0, method="group-lasso", prune_recipe=recipe, retrain_recipe=replace(recipe, epochs=1)
    )
    whole, report = prune(tiny, settings, data=data)
    assert report.got >= 2.0
    assert [row.name for row in report.stages] == ["dense", "group-lasso", "hard prune", "retrain"]
    file = tmp_path / "run.resume"
    with pytest.raises(stopped):
        prune(tiny, settings, data=data, resume_file=file, progress=break_after(12))
    resumed, _ = prune(tiny, settings, data=data, resume_file=file, resume=True)
    assert all(torch.equal(p, whole.parameters[name]) for name, p in resumed.parameters.items())
