"""Help that can be read: what is common first, panels in a pipe too, everything behind --help-all; and presets."""

from __future__ import annotations

import re

import pytest

from compressor.asking.presets import PRESETS
from compressor.cli import help as help_module
from compressor.cli import main as main_module
from compressor.cli.commands import command_functions, option_table
from tests.cli.conftest import Run
from tests.pinning import PINNED

COMMANDS = tuple(command_functions())
PANEL = re.compile(r"^([A-Z][^\n:]*):$", re.MULTILINE)


def flags(text: str) -> set[str]:
    """Long options that have a row of their own."""
    return set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS)
def test_common_options_stand_in_help_and_all_of_them_behind_one_more_word(run: Run, command: str) -> None:
    short, whole = run(command, "--help").out, run(command, "--help-all").out
    assert flags(short) < flags(whole)
    assert len(flags(short)) <= 40
    every = {f"--{name.replace('_', '-')}" for name in option_table()[command] if name not in ("model", "models")}
    assert flags(whole) == every | {"--help", "--help-all"}
    told = re.search(rf"(\d+) more options: compress {command} --help-all\n$", short)
    assert told is not None and int(told[1]) == len(flags(whole) - flags(short))
    assert "more options" not in whole


@pytest.mark.parametrize("command", COMMANDS)
def test_panels_stand_in_a_pipe_as_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    piped = run(command, "--help-all").out
    names = [name for name in PANEL.findall(piped) if name not in ("Usage", "Examples")]
    assert names[:2] == ["Arguments", "Options"] and {"The run", "The model"} <= set(names)
    monkeypatch.setenv("TERMINAL_WIDTH", "120")
    monkeypatch.setattr(main_module, "help_markup", lambda: "rich")
    boxed = run(command, "--help-all").out
    assert [name for name in re.findall(r"╭─ ([^─]*) ─", boxed)] == names


def test_what_only_ablations_use_is_in_one_panel(run: Run) -> None:
    whole = run("prune", "--help-all").out
    experiments = whole.partition("\nExperiments:\n")[2].partition("\n\n")[0]
    assert {"--settle", "--hold", "--reinit", "--layer-rho", "--search-lr", "--updates", "--alternate"} <= flags(
        experiments
    )
    assert not flags(experiments) & flags(run("prune", "--help").out)


def test_every_common_option_is_one() -> None:
    for command, names in help_module._OF_COMMAND.items():
        assert set(names) <= set(option_table()[command]), command


def test_no_arguments_print_the_help_and_capital_v_the_version(run: Run) -> None:
    assert run() == run("--help") and run().code == 0
    assert run("-V") == run("--version") and run("-V").code == 0


@pytest.mark.parametrize("command", PRESETS)
def test_a_preset_fills_in_what_nobody_said(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    for name in PINNED:
        monkeypatch.delenv(name)
    before = run(command, "m.pt", "--print-config", "--json").json["options"]
    for preset, filled in PRESETS[command].items():
        rows = run(command, "m.pt", "--preset", preset, "--print-config", "--json").json["options"]
        changed = {name: row["value"] for name, row in rows.items() if row["from"] == f"preset {preset}"}
        assert changed == dict(filled)
        assert {name for name in rows if rows[name] != before[name]} == {*filled, "preset"}
    own = run(command, "m.pt", "--preset", "best", "--epochs", "3", "--print-config", "--json").json["options"]
    assert own["epochs"] == {"value": 3, "from": "command line"}


def test_a_file_is_heard_before_a_preset(run: Run, here: object) -> None:
    from pathlib import Path

    Path("compress.toml").write_text('preset = "quick"\n[prune]\nepochs = 7\n')
    rows = run("prune", "m.pt", "--print-config", "--json").json["options"]
    assert rows["epochs"]["value"] == 7 and rows["retrain_epochs"] == {"value": 4, "from": "preset quick"}


def test_a_preset_is_what_runs(run: Run) -> None:
    done = run("prune", "model.pt", "-r", "1.5x", "--preset", "quick", "--no-latency", "--json")
    assert done.code == 0, done.err
    assert [row["epochs"] for row in done.json["stages"] if row["epochs"]] == [4, 4]
