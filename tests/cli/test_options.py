"""Options as the command line has them: every one read off its declaration, none missing, none said twice."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from compressor.asking import PruneSettings, Recipe, declared
from compressor.cli.commands import command_functions, option_table
from compressor.cli.declared import options_of, read_options, values_of
from compressor.cli.options import RunOptions
from compressor.cli.pruning import PruneOptions, prune_settings


def test_what_nobody_says_is_what_the_request_takes() -> None:
    """The command line hands on every default, and the request reads it as its own."""
    silent = read_options(PruneOptions, {"model": "m", "ratio": "2x"})
    spoken = read_options(PruneOptions, {**values_of(silent), "ratio": "2x"})
    plain = PruneSettings(ratio=2, prune_recipe=Recipe(), retrain_recipe=Recipe())
    assert prune_settings(silent) == prune_settings(spoken) == plain


def test_every_declared_option_is_an_option_of_the_command() -> None:
    names = set(options_of(PruneOptions))
    for one in (*declared(PruneSettings), *declared(Recipe)):
        assert one.name in names, one.name


def test_a_default_that_silence_stands_for_is_told_in_the_help() -> None:
    told = {}
    for one in declared(Recipe):
        text = options_of(PruneOptions)[one.name].annotation.__metadata__[0].help
        match = re.search(r"Default: (.+)\.$", text)
        if match is not None:
            told[one.field] = match[1]
    assert told["lr"] == "0.001, for sgd 0.02"
    assert told["batch_size"] == str(Recipe().batch_size)
    assert {"augment", "keep", "patience", "clip_norm"}.isdisjoint(told)
    assert len(told) >= 10


@pytest.mark.parametrize("command", command_functions())
def test_every_command_has_the_options_of_a_run(command: str) -> None:
    common = {field.name for field in fields(RunOptions)} - {"said"}
    assert common <= set(option_table()[command])


@pytest.mark.parametrize("command", command_functions())
def test_every_option_has_a_help_text_that_is_a_sentence(command: str) -> None:
    for name, annotation in option_table()[command].items():
        text = annotation.__metadata__[0].help
        assert text and text[0].isupper() | (not text[0].isalpha()) | (":" in text) | ("," in text), name
        assert text.endswith("."), name
        assert not re.search(r"\[[a-zA-Z#/@]", text), f"{name}: a terminal takes [word] for markup and hides it"


def test_own_options_come_before_inherited_ones() -> None:
    names = list(option_table()["prune"])
    assert names[0] == "ratio"
    places = [names.index(name) for name in ("ratio", "epochs", "lr", "arch", "device")]
    assert places == sorted(places)
