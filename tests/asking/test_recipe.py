from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from compressor.asking.recipe import Recipe
from compressor.errors import ConfigError, UsageError

WRONG: dict[str, list[Any]] = {
    "epochs": [0, 1.5, True, "3"],
    "epoch_steps": [0, 1.5],
    "batch_size": [0, -1],
    "optimizer": ["rmsprop", 3, None],
    "lr": [0, -1.0, float("nan"), float("inf"), "fast", True],
    "momentum": [1.0, -0.1],
    "nesterov": [1, "yes"],
    "weight_decay": [-1e-4],
    "l1": [-1.0],
    "schedule": ["exponential"],
    "cycle_epochs": [0, "2"],
    "warmup_epochs": [-1, 20],
    "min_lr_factor": [1.5, -0.5],
    "step_epochs": [0, -1.5],
    "step_factor": [0, 1.1],
    "clip_norm": [0, -1],
    "distill": [1.01, -0.1],
    "temperature": [0],
    "label_smoothing": [1, -0.1],
    "augment": [0],
    "compile": [0],
    "precision": ["fp8", 16],
    "keep": ["first"],
    "patience": [0],
}


def test_default_recipe_is_valid() -> None:
    assert Recipe() == Recipe(epochs=20, optimizer="adam", lr=1e-3, precision="fp32")


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 1e-3), ("adamw", 1e-3), ("sgd", 0.02)])
def test_each_optimizer_has_its_rate_unless_one_is_given(optimizer: str, lr: float) -> None:
    assert Recipe.from_mapping({"optimizer": optimizer}).lr == lr
    assert Recipe.from_mapping({"optimizer": optimizer, "lr": 0.3}).lr == 0.3


def test_every_field_has_a_failing_case() -> None:
    assert set(WRONG) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_value_is_named_with_what_is_allowed(name: str, value: Any) -> None:
    said = {
        "schedule": "lr-schedule",
        "keep": "keep-best",
        "step_epochs": "lr-step-epochs",
        "step_factor": "lr-step-factor",
    }.get(name, name.replace("_", "-"))
    with pytest.raises(UsageError, match=rf"^(--)?({said}|{name}) .*: (must be|choose one of) "):
        Recipe(**{name: value})


def test_whole_number_is_taken_for_a_float() -> None:
    recipe = Recipe(lr=1, clip_norm=2)
    assert (recipe.lr, type(recipe.lr), type(recipe.clip_norm)) == (1.0, float, float)


def test_warmup_must_fit_into_the_first_cycle() -> None:
    assert Recipe(epochs=10, cycle_epochs=4, warmup_epochs=3).warmup_epochs == 3
    with pytest.raises(UsageError, match=r"--warmup-epochs 4: .* less than 4"):
        Recipe(epochs=10, cycle_epochs=4, warmup_epochs=4)


def test_mapping_round_trip_has_no_none() -> None:
    recipe = Recipe(optimizer="sgd", clip_norm=1.0, patience=3)
    values = recipe.to_mapping()
    assert None not in values.values()
    assert Recipe.from_mapping(values) == recipe
    assert Recipe.from_mapping(Recipe().to_mapping()) == Recipe()


def test_mapping_takes_hyphens() -> None:
    assert Recipe.from_mapping({"batch-size": 8, "weight_decay": 1}) == Recipe(batch_size=8, weight_decay=1.0)


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="weight-decai: no such training option; nearest known: weight_decay"):
        Recipe.from_mapping({"weight-decai": 1})
    with pytest.raises(
        ConfigError, match="zzz: no such training option; nearest known: epochs, epoch_steps, batch_size"
    ):
        Recipe.from_mapping({"zzz": 1})


def test_key_given_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match="batch_size: given twice"):
        Recipe.from_mapping({"batch-size": 8, "batch_size": 9})
