"""Frozen layers: nothing of them moves, whatever optimizer, momentum and weight decay do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compressor.asking import PruneSettings, Recipe
from compressor.data import open_task
from compressor.data.arrays import ArraySource
from compressor.errors import UsageError
from compressor.program import Program
from compressor.pruning import prune, retrain
from compressor.pruning.freeze import FreezeHook
from compressor.training import fit

CONVOLUTIONS = ("one", "two", "bn*")


def moved(before: Program, after: Program) -> set[str]:
    then = before.module.state_dict()
    return {name for name, t in after.module.state_dict().items() if not torch.equal(t, then[name])}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_nothing_of_a_frozen_layer_moves_and_all_else_does(tiny: Program, data: ArraySource, optimizer: str) -> None:
    recipe = Recipe(epochs=2, batch_size=32, optimizer=optimizer, weight_decay=0.1)  # type: ignore[arg-type]
    before = tiny.clone()
    fit(tiny.module, data, open_task(None), recipe, hooks=[FreezeHook(tiny, CONVOLUTIONS)])
    assert moved(before, tiny) == {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}


def test_hans_order_cuts_and_retrains_linear_layers_then_convolutions(tiny: Program, data: ArraySource) -> None:
    """What the frozen layers lose by the second cut is all that happens to them."""
    recipe = Recipe(epochs=2, batch_size=32)
    settings = PruneSettings(
        ratio=2.0,
        method="magnitude",
        pattern="unstructured",
        scope=("hidden", "out"),
        freeze=CONVOLUTIONS,
        retrain_recipe=recipe,
    )
    first, _ = prune(tiny, settings, data=data)
    assert {name for name in moved(tiny, first)} <= {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}
    second, _ = prune(first, replace(settings, scope=("one", "two"), freeze=("hidden", "out")), data=data)
    assert not moved(first, second) & {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}
    assert {"one.weight", "two.weight", "bn1.running_mean"} <= moved(first, second)
    assert set(second.masks) >= {"one.weight", "two.weight", "hidden.weight", "out.weight"}


def test_admm_and_retrain_know_frozen_layers_too(tiny: Program, data: ArraySource) -> None:
    recipe = Recipe(epochs=2, batch_size=32)
    settings = PruneSettings(
        ratio=2.0, method="admm", pattern="unstructured", scope=("hidden", "out"), freeze=CONVOLUTIONS,
        prune_recipe=recipe, retrain_recipe=recipe,
    )  # fmt: skip
    pruned, _ = prune(tiny, settings, data=data)
    assert not {name for name in moved(tiny, pruned) if name.startswith(("one", "two", "bn"))}
    tuned, _ = retrain(pruned, recipe, data=data, freeze=("hidden",))
    assert not {name for name in moved(pruned, tuned) if name.startswith("hidden")}
    assert "one.weight" in moved(pruned, tuned)


def test_a_glob_that_matches_nothing_or_everything_is_refused(tiny: Program) -> None:
    with pytest.raises(UsageError, match="--freeze conv9: matches no layer; layers are bn1, bn2, hidden"):
        FreezeHook(tiny, ("conv9",))
    with pytest.raises(UsageError, match=r"--freeze \*: freezes every layer; leave one to train"):
        FreezeHook(tiny, ("*",))
