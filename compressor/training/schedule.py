"""The learning rate as a pure function of the position in the run; it must never hold state."""

from __future__ import annotations

import math

from compressor.asking.recipe import Recipe


def learning_rate(recipe: Recipe, epoch: int, step: int, n_steps: int) -> float:
    """Rate of one optimizer step; with `cycle_epochs` the schedule starts again at every multiple of it.

    A cycle may be a part of an epoch.

    Units:   `epoch` and `step` count from 0; the first step of a cosine runs at the full rate, the warm-up is
             linear, ends at the full rate and takes its epochs from the first cycle.
    Source:  Loshchilov & Hutter 2017, "SGDR", eq. 5 (cosine with restarts, here by steps).
    """
    position = epoch + min(step / n_steps, 1.0)
    warmup = recipe.warmup_epochs
    if position < warmup:
        return recipe.lr * min((position + 1 / n_steps) / warmup, 1.0)
    length = recipe.cycle_epochs or recipe.epochs
    first_cycle = position < length
    position -= warmup if first_cycle else length * (position // length)
    factor = _factor(recipe, position, length - warmup if first_cycle else length)
    return recipe.lr * max(factor, recipe.min_lr_factor)


def _factor(recipe: Recipe, position: float, length: float) -> float:
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "linear":
        return 1 - position / length
    if recipe.schedule == "step":
        # The rate falls twice unless it is said how often: a cycle may be much shorter than an epoch.
        n_falls = position // recipe.step_epochs if recipe.step_epochs else 3 * position // length
        return recipe.step_factor**n_falls
    return 0.5 * (1 + math.cos(math.pi * position / length))
