"""Options read off declarations: each stands in one place, and the library agrees with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from compressor.asking import declared, option
from compressor.cli.analyze import AnalyzeOptions
from compressor.cli.bench import BenchOptions
from compressor.cli.compact import CompactOptions
from compressor.cli.declared import declarations, options_of, read_options, values_of
from compressor.cli.export import ExportOptions
from compressor.cli.options import RunOptions
from compressor.cli.pruning import PruneOptions
from compressor.cli.retrain import RetrainOptions

COMMANDS = (AnalyzeOptions, BenchOptions, CompactOptions, ExportOptions, PruneOptions, RetrainOptions)

MEANS_SOMETHING_ELSE = {
    "batch": "a size that bench measures, a size that a file fixes",
    "epochs": "of the search, of the retraining",
    "output": "a scan, a model",
    "pattern": "what a scan cuts first, what prune cuts",
    "require": "gates between models, gates of one",
    "round_to": "widths that prune leaves, widths that compact fills up",
    "scope": "layers that a scan tries, layers that the ratio is over",
    "sensitivity": "make a scan, use one",
    "threads": "that bench measures with, that compact tries forms with",
    "through_norm": "as the model was pruned where nobody says, pin where nobody says",
}
"""Names of two options of different commands, with what each means."""


def repeated(kinds: tuple[type[RunOptions], ...]) -> set[str]:
    """Names that are declared in more than one place."""
    places = {(place, name) for kind in kinds for place, name in declarations(kind)}
    return {name for name, n in Counter(name for _, name in places).items() if n > 1}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_every_option_from_one_place(command: type[RunOptions]) -> None:
    assert repeated((command,)) == set() and len(options_of(command)) > 20


def test_an_option_is_declared_once() -> None:
    assert repeated(COMMANDS) == set(MEANS_SOMETHING_ELSE)


def test_twin_a_second_declaration_is_noticed() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Again:
        seed: int = option(0, "The same once more.")

    @dataclass(frozen=True, kw_only=True)
    class Options(RunOptions):
        asks = (Again,)

    assert [one.name for one in declared(Again)] == ["seed"] and repeated((Options,)) == {"seed"}


def test_what_is_said_is_what_stands() -> None:
    chosen = read_options(CompactOptions, {"model": "m.pt", "round_to": "8", "lowering": "dense"})
    values = values_of(chosen)
    assert (chosen.model, values["round_to"], values["lowering"], values["threads"]) == ("m.pt", "8", "dense", 1)
