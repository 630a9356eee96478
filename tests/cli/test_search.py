"""Separate trainings for the search, between its stages and at the end."""

from __future__ import annotations

import pytest

from compressor.cli.options import RecipeOptions, option_types, recipe_values
from compressor.cli.prune import PruneOptions, prune_settings
from compressor.cli.search import SearchOptions, recipes_of
from compressor.errors import ConfigError
from compressor.training import Recipe

COMMON = RecipeOptions(lr=0.01, l1=1e-4, optimizer="sgd", distill=0.5, batch_size=32)


def test_the_search_takes_what_it_has_of_its_own_and_the_rest_from_the_retraining() -> None:
    options = SearchOptions(epochs=6, search_lr=0.05, search_l1=0.0, search_lr_schedule="constant", retrain_epochs=9)
    search, between, last = recipes_of(options, recipe_values(COMMON), searches=True)
    assert search == Recipe(epochs=6, lr=0.05, l1=0.0, schedule="constant", optimizer="sgd", batch_size=32)
    assert last == Recipe(epochs=9, lr=0.01, l1=1e-4, optimizer="sgd", batch_size=32, distill=0.5)
    assert between is None


def test_another_optimizer_comes_with_its_own_usual_rate() -> None:
    options = SearchOptions(search_optimizer="adam")
    assert recipes_of(options, recipe_values(COMMON), searches=True).search == Recipe(
        optimizer="adam", l1=1e-4, batch_size=32
    )
    same = SearchOptions(search_optimizer="sgd")
    assert recipes_of(same, recipe_values(COMMON), searches=True).search == Recipe(
        optimizer="sgd", lr=0.01, l1=1e-4, batch_size=32
    )


def test_a_run_that_does_not_search_has_no_search_and_one_that_is_not_retrained_no_end() -> None:
    assert recipes_of(SearchOptions(no_retrain=True), {}, searches=False) == (None, None, None)
    settings = prune_settings(PruneOptions(model="m.pt", ratio="4x", stage_epochs=2, stages=3, no_retrain=True), "cpu")
    assert settings.retrain_recipe is None and settings.stage_recipe == Recipe(epochs=2, distill=0.0)
    assert settings.prune_recipe is not None and settings.recipes == (settings.prune_recipe, settings.stage_recipe)


def test_every_search_option_is_one_of_the_training() -> None:
    of_search = {name.removeprefix("search_") for name in option_types(SearchOptions) if name.startswith("search_")}
    assert of_search and of_search <= set(option_types(RecipeOptions))
    with pytest.raises(ConfigError, match=r"lr = -1\.0: must be a number above 0"):
        recipes_of(SearchOptions(search_lr=-1.0), {}, searches=True)
