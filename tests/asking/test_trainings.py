"""Separate trainings for the search, between its stages and at the end."""

from __future__ import annotations

import pytest

from compressor.asking import PruneSettings, Recipe, Trainings, build, declared
from compressor.cli.pruning import PruneOptions, prune_settings
from compressor.errors import UsageError

COMMON = {"lr": 0.01, "l1": 1e-4, "optimizer": "sgd", "distill": 0.5, "batch_size": 32, "keep_best": True}


def test_the_search_takes_what_it_has_of_its_own_and_the_rest_from_the_retraining() -> None:
    own = {"epochs": 6, "search_lr": 0.05, "search_l1": 0.0, "search_lr_schedule": "constant", "retrain_epochs": 9}
    search, between, last = build(Trainings, own).recipes({**COMMON, **own}, searches=True)
    assert search == Recipe(epochs=6, lr=0.05, l1=0.0, schedule="constant", optimizer="sgd", batch_size=32)
    assert last == Recipe(epochs=9, lr=0.01, l1=1e-4, optimizer="sgd", batch_size=32, distill=0.5, keep="best")
    assert between is None


def test_another_optimizer_comes_with_its_own_usual_rate() -> None:
    found = Trainings(search_optimizer="adam").recipes(COMMON, searches=True).search
    assert found == Recipe(optimizer="adam", l1=1e-4, batch_size=32)
    same = Trainings(search_optimizer="sgd").recipes(COMMON, searches=True).search
    assert same == Recipe(optimizer="sgd", lr=0.01, l1=1e-4, batch_size=32)


def test_a_run_that_does_not_search_has_no_search_and_one_that_is_not_retrained_no_end() -> None:
    assert Trainings(no_retrain=True).recipes({}, searches=False) == (None, None, None)
    said = {"ratio": "4x", "stage_epochs": 2, "stages": 3, "no_retrain": True}
    settings = prune_settings(PruneOptions(model="m.pt", said=said))
    assert settings.retrain_recipe is None and settings.stage_recipe == Recipe(epochs=2)
    assert settings.prune_recipe is not None and settings.recipes == (settings.prune_recipe, settings.stage_recipe)


@pytest.mark.parametrize(
    ("said", "searches"),
    [({}, True), ({"method": "group-lasso"}, True), ({"method": "magnitude"}, False), ({"method": "random"}, False)],
)
def test_who_searches(said: dict[str, str], searches: bool) -> None:
    assert build(PruneSettings, {"ratio": "2x", **said}).searches is searches
    if not searches:
        assert build(PruneSettings, {"ratio": "2x", "steps": 2, **said}).searches


def test_every_search_option_is_one_of_the_training() -> None:
    of_search = {one.name.removeprefix("search_") for one in declared(Trainings) if one.name.startswith("search_")}
    assert of_search and of_search <= {one.name for one in declared(Recipe)}
    with pytest.raises(UsageError, match="--lr -1: must be above 0"):
        Trainings(search_lr=-1.0).recipes({}, searches=True)


def test_no_epochs_leave_the_search_out_and_nothing_else() -> None:
    search, between, last = Trainings(epochs=0, stage_epochs=2).recipes({}, searches=True)
    assert search is None and between is not None and last == Recipe()
    with pytest.raises(UsageError, match="--epochs -1: must be at least 0"):
        Trainings(epochs=-1)
