"""A pruning run as a list of phases, made from the settings alone; it must never execute one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compressor.asking import Recipe
from compressor.asking.prune import SEARCHING, PruneSettings


@dataclass(frozen=True)
class Phase:
    """One stretch of training towards `ratio`.

    `search`: the weights are drawn towards the constraint set, nothing is cut. `masked`: first cut to `ratio`, then
    trained under the masks. Without a recipe nothing is trained.
    """

    name: str
    kind: Literal["search", "masked"]
    ratio: float
    recipe: Recipe | None


def plan(settings: PruneSettings) -> tuple[Phase, ...]:
    """The phases of a run.

    magnitude: `steps` rounds of cut and retrain (Han et al. 2015, sec. 3). admm: ADMM, hard prune, masked retraining
    (Zhang et al. 2018), and group-lasso likewise; with `stages` > 1 the ratio is approached progressively, each stage
    starting from the last.
    """
    if settings.method in SEARCHING:
        return _search_phases(settings)
    ratios = step_ratios(settings.ratio, settings.steps, settings.schedule)
    phases = []
    for i, ratio in enumerate(ratios, 1):
        recipe = settings.retrain_recipe if i == len(ratios) else settings.prune_recipe
        once = "prune" if recipe is None else "prune + retrain"
        name = once if len(ratios) == 1 else f"step {i}/{len(ratios)}"
        phases.append(Phase(name, "masked", ratio, recipe))
    return tuple(phases)


def _search_phases(settings: PruneSettings) -> tuple[Phase, ...]:
    stages = settings.admm.stages
    phases: list[Phase] = []
    for i, ratio in enumerate(step_ratios(settings.ratio, stages, "geometric"), 1):
        of = f" {i}/{stages}" if stages > 1 else ""
        last = i == stages
        if settings.prune_recipe is not None:
            phases.append(Phase(f"{settings.method}{of}", "search", ratio, settings.prune_recipe))
        phases.append(Phase(f"hard prune{of}", "masked", ratio, None))
        if last and settings.retrain_recipe is not None:
            phases.append(Phase("retrain", "masked", ratio, settings.retrain_recipe))
        if not last and settings.stage_recipe is not None:
            phases.append(Phase(f"retrain{of}", "masked", ratio, settings.stage_recipe))
    return tuple(phases)


def step_ratios(ratio: float, steps: int, schedule: str) -> tuple[float, ...]:
    """Ratios on the way to `ratio`, the last one exact.

    geometric: equal factors. cubic: sparsity s·(1 − (1 − t)³), fast at first.
    Source:  Zhu & Gupta 2017, "To prune, or not to prune", eq. 1, for the cubic one.
    """
    if schedule == "geometric":
        ratios = [ratio ** (i / steps) for i in range(1, steps + 1)]
    else:
        sparsity = 1 - 1 / ratio
        ratios = [1 / (1 - sparsity * (1 - (1 - i / steps) ** 3)) for i in range(1, steps + 1)]
    return (*ratios[:-1], ratio)
