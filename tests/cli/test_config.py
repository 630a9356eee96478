"""compress.toml, [tool.compress] and COMPRESS_*."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.cli.commands import option_table
from compressor.cli.config import environment_values, file_values, unknown_variables
from compressor.cli.config_file import find_config, open_config
from compressor.errors import ConfigError


def write(folder: Path, text: str, name: str = "compress.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def values(folder: Path, text: str, command: str = "prune") -> dict[str, Any]:
    return file_values(open_config(write(folder, text), found=True), command, option_table())


def found(folder: Path) -> Path | None:
    file = find_config(folder)
    return None if file is None else file.path


def test_the_nearest_file_upwards_wins(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    outer = write(tmp_path, "")
    assert found(below) == outer
    inner = write(tmp_path / "a", "[tool.compress]\nseed = 1\n", "pyproject.toml")
    assert found(below) == inner
    write(tmp_path / "a" / "b", "[tool.compressor]\n", "pyproject.toml")
    assert found(below) == inner


def test_compress_toml_goes_before_pyproject(tmp_path: Path) -> None:
    write(tmp_path, "[tool.compress]\nseed = 1\n", "pyproject.toml")
    own = write(tmp_path, "seed = 2")
    assert found(tmp_path) == own


def test_shared_keys_and_the_commands_table_come_together(tmp_path: Path) -> None:
    found = values(
        tmp_path,
        'seed = 3\ndevice = "cpu"\nepochs = 5\n[prune]\nratio = 13\nround-to = 8\nscope = ["conv*", "fc"]\n'
        "augment = true\nlr = 1\n[bench]\nthreads = [1, 2]\n",
    )
    assert found == {
        "seed": 3,
        "device": "cpu",
        "epochs": 5,
        "ratio": "13",
        "round_to": "8",
        "scope": ["conv*", "fc"],
        "augment": True,
        "lr": 1.0,
    }


def test_a_commands_table_goes_before_shared_keys(tmp_path: Path) -> None:
    assert values(tmp_path, "seed = 1\n[prune]\nseed = 2")["seed"] == 2


def test_shared_keys_reach_only_commands_that_have_them(tmp_path: Path) -> None:
    assert values(tmp_path, "epochs = 5", "compact") == {}


def test_numbers_in_lists_are_texts(tmp_path: Path) -> None:
    assert values(tmp_path, "[bench]\nthreads = [1, 2]\nbatch = 4", "bench") == {
        "threads": ["1", "2"],
        "batch": ["4"],
    }


def test_pyproject_is_read_under_its_table(tmp_path: Path) -> None:
    path = write(tmp_path, "[tool.compress]\nseed = 4\n[tool.compress.prune]\nsteps = 2\n", "pyproject.toml")
    assert file_values(open_config(path, found=True), "prune", option_table()) == {"seed": 4, "steps": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[prune]\nratoi = 13", r"compress.toml: \[prune\] ratoi: no such option; nearest known: ratio"),
        ("sede = 1", "compress.toml: sede: no such option; nearest known: seed"),
        ("[prun]\nratio = 2", "compress.toml: prun: no such option; nearest known: prune"),
        ("ratio = 13", r"compress.toml: ratio: is an option of prune; put it under \[prune\]"),
        ("prune = 13", "compress.toml: prune must be a table"),
        ("[prune]\nsteps = 'x'", r'steps = "x": must be a whole number'),
        ("[prune]\nsteps = true", "steps = True: must be a whole number"),
        ("[prune]\nlr = '1'", 'lr = "1": must be a number'),
        ("[prune]\naugment = 1", "augment = 1: must be true or false"),
        ("[prune]\nmethod = 'amdm'", "must be one of admm, group-lasso, magnitude, random"),
        ("[prune]\nscope = [true]", "must be a list of texts"),
        ("[prune]\nround-to = 1\nround_to = 2", "given twice, with - and with _"),
        ("[prune]\noutput = 'x'", "goes on the command line only"),
        ("trust-pickle = true", "trust-pickle: goes on the command line only, never into a file"),
        ("allow-config = true", "allow-config: goes on the command line only, never into a file"),
        pytest.param(f"seed = {'9' * 5000}", "cannot be read", id="a number of 5,000 digits"),
        pytest.param(f"seed{'.a' * 5000} = 1", "seed = a table: must be a whole number", id="5,000 tables deep"),
        pytest.param(f"# {'x' * 2**20}", "larger than 1 MiB", id="a megabyte"),
        ("[prune]\ntrust_pickle = true", "goes on the command line only"),
        ("a = [", "cannot be read"),
    ],
)
def test_mistakes_name_file_table_and_key(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        values(tmp_path, text)


def test_tables_of_other_commands_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[bench\] thread: no such option; nearest known: threads"):
        values(tmp_path, "[bench]\nthread = [1]", "prune")


def test_references_beside_the_file_are_meant_from_there(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    write(tmp_path, "", "net.py")
    found = values(tmp_path, "data = 'mnist:digits'\narch = 'net.py:Net'\ntask = 'elsewhere.py:Task'")
    assert found["data"] == f"mnist:{tmp_path / 'digits'}"
    assert found["arch"] == f"{tmp_path / 'net.py'}:Net"
    assert found["task"] == f"{tmp_path / 'elsewhere.py'}:Task", "there or nowhere"
    assert values(tmp_path, "arch = 'lenet5'") == {"arch": "lenet5"}


def test_environment_is_read_by_type() -> None:
    environment = {
        "COMPRESS_SEED": "7",
        "COMPRESS_LR": "1e-2",
        "COMPRESS_AUGMENT": "yes",
        "COMPRESS_SCOPE": "conv* fc",
        "COMPRESS_METHOD": "magnitude",
        "COMPRESS_DATA": "",
        "COMPRESS_OUTPUT": "never.pt",
    }
    assert environment_values(environment, option_table()["prune"]) == {
        "seed": 7,
        "lr": 0.01,
        "augment": True,
        "scope": ["conv*", "fc"],
        "method": "magnitude",
    }


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("COMPRESS_SEED", "x", "COMPRESS_SEED=x: must be a whole number"),
        ("COMPRESS_AUGMENT", "maybe", "COMPRESS_AUGMENT=maybe: must be true or false"),
        ("COMPRESS_METHOD", "x", "must be one of admm"),
    ],
)
def test_mistakes_name_the_variable(variable: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        environment_values({variable: text}, option_table()["prune"])


def test_unknown_variables_are_found() -> None:
    environment = {"COMPRESS_SEDE": "1", "COMPRESS_DEBUG": "1", "COMPRESS_THREADS": "2", "PATH": "x"}
    assert unknown_variables(environment, option_table()) == ("COMPRESS_SEDE",)


def test_command_line_goes_before_environment_before_file(
    run: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.cli import main as main_module

    seen: list[Any] = []
    monkeypatch.setattr(
        main_module._Ending, "around", lambda self, name, function, options, origins: seen.append(options)
    )
    write(here, "seed = 1\nepochs = 1\n[retrain]\nlr = 0.5\n")
    monkeypatch.setenv("COMPRESS_EPOCHS", "2")
    monkeypatch.setenv("COMPRESS_SEED", "2")
    assert run("retrain", "model.pt", "--seed", "3").code == 0
    assert (seen[0].seed, seen[0].epochs, seen[0].said["lr"]) == (3, 2, 0.5)


def test_a_file_may_be_named(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.cli import main as main_module

    seen: list[Any] = []
    monkeypatch.setattr(
        main_module._Ending, "around", lambda self, name, function, options, origins: seen.append(options)
    )
    write(here, "seed = 1")
    write(here, "seed = 9", "other.toml")
    assert run("analyze", "model.pt", "--config", "other.toml").code == 0
    assert seen[0].seed == 9
    missing = run("analyze", "model.pt", "--config", "nowhere.toml")
    assert missing.code == 2
    assert missing.err == "compress: --config nowhere.toml: there is no such file\n"


def test_a_mistake_in_the_file_ends_with_2_and_short(run: Any, here: Path) -> None:
    write(here, "[prune]\nratoi = 13")
    done = run("analyze", "model.pt", "--json")
    assert (done.code, done.json["error"]) == (2, "ConfigError")
    assert done.err.count("\n") == 1


def test_an_unknown_variable_is_told_and_stops_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_SEDE", "1")
    done = run("prune", "model.pt")
    assert done.err.startswith("note: COMPRESS_SEDE is set but no option reads it\n")
