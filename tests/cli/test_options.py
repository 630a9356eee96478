"""Options against what they stand for: no default and no choice may be written twice and differ."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, get_args

import pytest

from compressor.axes import THROUGH_NORM
from compressor.cli.bench import BenchOptions
from compressor.cli.commands import command_functions, option_table, options_class
from compressor.cli.options import RecipeOptions, RunOptions, multiple_of, option_types, recipe_values
from compressor.cli.prune import PruneOptions
from compressor.pruning.settings import ALLOCATIONS, METHODS, Admm, PruneSettings
from compressor.timing import bench
from compressor.training import Recipe


def literal(options: type[Any], name: str) -> set[str]:
    """The choices of an option."""
    annotation = get_args(option_types(options)[name])[0]
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return set(parts if isinstance(parts[0], str) else get_args(parts[0]))


@pytest.mark.parametrize(
    ("name", "choices"),
    [("method", METHODS), ("allocation", ALLOCATIONS), ("through_norm", THROUGH_NORM)],
)
def test_choices_of_prune_are_those_of_its_settings(name: str, choices: tuple[str, ...]) -> None:
    assert literal(PruneOptions, name) == set(choices)


def test_defaults_of_prune_are_those_of_its_settings() -> None:
    settings = PruneSettings(ratio=2)
    for name in (
        "method",
        "pattern",
        "through_norm",
        "of",
        "allocation",
        "steps",
        "schedule",
        "floor",
        "unit_share",
        "seed",
    ):
        assert getattr(PruneOptions(model="m"), name) == getattr(settings, name), name
    assert multiple_of(PruneOptions(model="m").round_to) == settings.round_to
    for name in ("rho", "rho_growth", "rho_max", "updates", "stages"):
        assert getattr(PruneOptions(model="m"), name) == getattr(Admm(), name), name


def test_defaults_of_bench_are_those_of_the_function() -> None:
    defaults = bench.__kwdefaults__ or {}
    for name in ("provider", "min_runs", "min_seconds", "max_seconds", "warmup", "seed"):
        assert getattr(BenchOptions(models=["m"]), name) == defaults[name], name


def test_defaults_told_in_the_help_are_those_of_the_recipe() -> None:
    recipe = Recipe()
    told = 0
    for name, annotation in option_types(RecipeOptions).items():
        match = re.search(r"Default: (\S+)\.$", annotation.__metadata__[0].help)
        if match is not None:
            told += 1
            field = {"lr_schedule": "schedule"}.get(name, name)
            assert match[1] == str(getattr(recipe, field)), name
    assert told >= 10


def test_every_training_option_is_a_field_of_the_recipe() -> None:
    assert Recipe.from_mapping(
        recipe_values(
            RecipeOptions(
                batch_size=8,
                optimizer="sgd",
                lr=0.1,
                lr_schedule="step",
                warmup_epochs=1,
                momentum=0.5,
                weight_decay=0.1,
                l1=0.1,
                clip_norm=1.0,
                distill=0.5,
                temperature=2.0,
                label_smoothing=0.1,
                augment=True,
                precision="bf16",
                keep_best=True,
                patience=3,
            )
        )
    ) == Recipe(
        batch_size=8,
        optimizer="sgd",
        lr=0.1,
        schedule="step",
        warmup_epochs=1,
        momentum=0.5,
        weight_decay=0.1,
        l1=0.1,
        clip_norm=1.0,
        distill=0.5,
        temperature=2.0,
        label_smoothing=0.1,
        augment=True,
        precision="bf16",
        keep="best",
        patience=3,
    )
    assert recipe_values(RecipeOptions()) == {}


def test_choices_of_the_training_are_those_of_the_recipe() -> None:
    for name in ("optimizer", "lr_schedule", "precision"):
        for choice in literal(RecipeOptions, name):
            Recipe(**{{"lr_schedule": "schedule"}.get(name, name): choice})
        assert len(literal(RecipeOptions, name)) == 3


@pytest.mark.parametrize("command", command_functions())
def test_every_command_has_the_options_of_a_run(command: str) -> None:
    common = {field.name for field in fields(RunOptions)}
    assert common <= set(option_table()[command])


@pytest.mark.parametrize("command", command_functions())
def test_every_option_has_a_help_text_that_is_a_sentence(command: str) -> None:
    for name, annotation in option_table()[command].items():
        text = annotation.__metadata__[0].help
        assert text and text[0].isupper() | (not text[0].isalpha()) | (":" in text) | ("," in text), name
        assert text.endswith("."), name
        assert not re.search(r"\[[a-zA-Z#/@]", text), f"{name}: a terminal takes [word] for markup and hides it"


def test_own_options_come_before_inherited_ones() -> None:
    names = list(option_types(options_class(command_functions()["prune"])))
    assert names[0] == "ratio"
    assert names.index("ratio") < names.index("lr") < names.index("arch") < names.index("device")
