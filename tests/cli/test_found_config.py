"""A configuration file that was only found chooses no code before the user allowed it; named, it is the user's word.

Every case has a canary: a file that the code makes when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor.cli.main import main
from compressor.program import InputSpec

CODE = """
from pathlib import Path
import torch
from compressor.data import Classification
from torch import nn
from torch.utils.data import TensorDataset
Path(__file__).with_name("ran").touch()
def data():
    torch_data = TensorDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))
    return torch_data, torch_data
class Task(Classification):
    pass
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
"""

LINES = {
    "data in a file": 'data = "theirs.py:data"',
    "data in a module": 'data = "found_module:data"',
    "task in a file": 'task = "theirs.py:Task"',
    "task in a module": 'task = "found_module:Task"',
    "arch in a file": 'arch = "theirs.py:Net"',
    "arch in a module": 'arch = "found_module:Net"',
    "plugin in a file": 'plugin = ["theirs.py"]',
    "plugin in a module": 'plugin = "found_module"',
}

FAST = ["--min-runs", "2", "--min-seconds", "0"]
COMMANDS = {
    "analyze": ["{model}"],
    "prune": ["{model}", "-r", "1.5x", "--no-retrain", "-m", "magnitude", "-o", "{folder}/out.pt"],
    "retrain": ["{model}", "--epochs", "1", "-o", "{folder}/out.pt"],
    "compact": ["{model}", "--allow-noop", "-o", "{folder}/out.pt"],
    "export": ["{model}", "-o", "{folder}/out.onnx"],
    "bench": ["{model}", "--accuracy", *FAST],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with code in it, a model of ours and bare weights, as the working directory."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("theirs.py", "found_module.py"):
        (project / name).write_text(CODE)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    compressor.save(compressor.capture(module, [InputSpec("x", (None, 4))]), project / "model.pt")
    torch.save(module.state_dict(), project / "weights.pt")
    monkeypatch.chdir(project)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for variable in [name for name in os.environ if name.startswith("COMPRESS_")]:
        monkeypatch.delenv(variable)
    yield project
    forget_modules()


def forget_modules() -> None:
    for name in [name for name in sys.modules if name == "found_module" or name.startswith("_compressor_theirs")]:
        del sys.modules[name]


def call(folder: Path, command: str, line: str, *more: str) -> int:
    """Runs a command on the model that makes it use what the line names."""
    forget_modules()
    (folder / "ran").unlink(missing_ok=True)
    model = "weights.pt" if line.startswith("arch") else "model.pt"
    words = [word.format(model=folder / model, folder=folder) for word in COMMANDS[command]]
    given = ["--input", "4"] if line.startswith("arch") else []
    if command in ("retrain", "bench") and not line.startswith("data"):
        given += ["--data", f"{folder.parent / 'own.py'}:data"]
        (folder.parent / "own.py").write_text(CODE.replace("ran", "own ran"))
    return main(
        [command, *words, *given, *more, "--force"] if command != "analyze" else [command, *words, *given, *more]
    )


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Gives a path to another user."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, 4242, -1, follow_symlinks=False)
        else:
            monkeypatch.setattr("compressor.cli.config_file.os.geteuid", lambda: 4242)

    return give


NEEDS = {"plugin": ("analyze", "prune", "retrain", "compact", "export"), "arch": COMMANDS, "task": COMMANDS}


@pytest.mark.parametrize("named", LINES)
@pytest.mark.parametrize(
    ("home", "command"), [*(("compress.toml", command) for command in COMMANDS), ("pyproject.toml", "analyze")]
)
def test_what_a_found_file_names_is_not_run(
    home: str, command: str, named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = LINES[named]
    (folder / home).write_text(line if home == "compress.toml" else f"[tool.compress]\n{line}\n")
    code = call(folder, command, line)
    told = capsys.readouterr().err
    assert not (folder / "ran").exists(), told
    assert "bug in compress" not in told
    if command in NEEDS.get(line.split(" ")[0], COMMANDS):
        assert code == 2, told
        assert f"{folder / home}: was found, not named" in told
        assert f"compress {command} --allow-config " in told.replace("'", ""), "the exact command"
        assert told.count("\n") <= 3
    assert not list(folder.glob("out.*"))


@pytest.mark.parametrize("named", LINES)
@pytest.mark.parametrize("leave", ["--config", "--allow-config", "COMPRESS_ALLOW_CONFIG", "allowed before"])
def test_twin_with_the_users_leave_it_is_run(
    leave: str, named: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = LINES[named]
    (folder / "compress.toml").write_text(line)
    more: list[str] = []
    if leave == "--config":
        more = ["--config", "compress.toml"]
    elif leave == "--allow-config":
        more = ["--allow-config"]
    elif leave == "allowed before":
        assert call(folder, "analyze", line, "--allow-config") == 0
    else:
        monkeypatch.setenv("COMPRESS_ALLOW_CONFIG", "1")
    assert call(folder, "analyze", line, *more) == 0, capsys.readouterr().err
    assert (folder / "ran").exists()


def test_leave_is_remembered_for_this_content_at_this_place_only(folder: Path, capsys: Any) -> None:
    line = LINES["data in a file"]
    file = folder / "compress.toml"
    file.write_text(line)
    assert call(folder, "analyze", line, "--allow-config") == 0
    assert "may name code from now on, until it changes" in capsys.readouterr().err
    assert call(folder, "analyze", line) == 0 and (folder / "ran").exists()
    file.write_text(f"{line}\nseed = 1\n")
    assert call(folder, "analyze", line) == 2 and not (folder / "ran").exists()
    assert "has changed since it was allowed" in capsys.readouterr().err
    file.write_text(line)
    assert call(folder, "analyze", line) == 0, "the very content that was allowed"
    moved = folder / "sub"
    moved.mkdir()
    (moved / "compress.toml").write_text(line)
    (moved / "theirs.py").write_text(CODE)
    os.chdir(moved)
    assert call(folder, "analyze", line) == 2 and not (moved / "ran").exists()


@pytest.mark.parametrize("leave", ["COMPRESS_ALLOW_CONFIG", "--config", "--print-config"])
def test_what_is_for_one_run_is_not_remembered(leave: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = LINES["data in a file"]
    (folder / "compress.toml").write_text(line)
    with monkeypatch.context() as patch:
        if leave == "COMPRESS_ALLOW_CONFIG":
            patch.setenv(leave, "1")
        more = {"--config": ["--config", "compress.toml"], "--print-config": ["--print-config", "--allow-config"]}
        assert call(folder, "analyze", line, *more.get(leave, [])) == 0
    assert not (folder.parent / "state").exists()
    assert call(folder, "analyze", line) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners of files")
@pytest.mark.parametrize("named", LINES)
@pytest.mark.parametrize("leave", [[], ["--allow-config"]], ids=["without", "with leave"])
def test_a_found_file_of_another_user_never_names_code(
    leave: list[str], named: str, folder: Path, foreign: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    line = LINES[named]
    (folder / "compress.toml").write_text(line)
    foreign(folder / "compress.toml")
    assert call(folder, "analyze", line, *leave) == 2
    told = capsys.readouterr().err
    assert not (folder / "ran").exists()
    assert f"note: options are taken from {folder / 'compress.toml'}, which belongs to another user" in told
    assert f"--config {folder / 'compress.toml'}" in told.replace("'", "")
    assert call(folder, "analyze", line, "--config", "compress.toml") == 0, "named, it is the user's own word"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners of files")
def test_a_link_of_another_user_to_a_file_of_mine_is_foreign(
    folder: Path, foreign: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    line = LINES["data in a file"]
    (folder / "mine.toml").write_text(line)
    (folder / "compress.toml").symlink_to("mine.toml")
    foreign(folder / "compress.toml")
    assert call(folder, "analyze", line, "--allow-config") == 2
    assert "belongs to another user" in capsys.readouterr().err and not (folder / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners of files")
@pytest.mark.parametrize("named", [name for name in LINES if name.endswith("a file")])
def test_an_allowed_file_does_not_lead_to_code_of_another_user(
    named: str, folder: Path, foreign: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "compress.toml").write_text(LINES[named])
    assert call(folder, "analyze", LINES[named], "--allow-config") == 0
    foreign(folder / "theirs.py")
    assert call(folder, "analyze", LINES[named]) == 2
    assert "belongs to another user" in capsys.readouterr().err and not (folder / "ran").exists()


def test_settings_that_are_no_code_work_unasked(folder: Path, foreign: Callable[[Path], None], capsys: Any) -> None:
    (folder / "compress.toml").write_text(
        "seed = 3\n[prune]\nratio = '1.5x'\nmethod = 'magnitude'\nno-retrain = true\n"
    )
    for _ in range(2):
        assert main(["prune", str(folder / "model.pt"), "-o", "out.pt", "--force"]) == 0, capsys.readouterr().err
        record = compressor.load("out.pt").record
        assert record.steps[-1].seed == 3 and record.steps[-1].options["ratio"] == "1.5x"
        foreign(folder / "compress.toml")


def test_what_the_command_line_says_instead_is_not_the_files(folder: Path) -> None:
    """The file names code for an option that is given: then its code is not asked for."""
    (folder / "compress.toml").write_text('data = "theirs.py:data"')
    (folder.parent / "own.py").write_text(CODE)
    assert main(["analyze", "model.pt", "--data", f"{folder.parent / 'own.py'}:data"]) == 0
    assert (folder.parent / "ran").exists() and not (folder / "ran").exists()


def test_a_module_is_looked_for_beside_the_file_not_where_one_stands(folder: Path, capsys: Any) -> None:
    (folder / "compress.toml").write_text('data = "found_module:data"')
    below = folder / "vendor"
    below.mkdir()
    (below / "found_module.py").write_text(CODE)
    os.chdir(below)
    assert main(["analyze", str(folder / "model.pt"), "--allow-config"]) == 0, capsys.readouterr().err
    assert (folder / "ran").exists() and not (below / "ran").exists()


def test_a_file_that_is_not_there_is_not_looked_for_where_one_stands(folder: Path, capsys: Any) -> None:
    (folder / "compress.toml").write_text('data = "gone.py:data"')
    below = folder / "vendor"
    below.mkdir()
    (below / "gone.py").write_text(CODE)
    os.chdir(below)
    assert main(["analyze", str(folder / "model.pt"), "--allow-config"]) == 1
    assert f"{folder / 'gone.py'}" in capsys.readouterr().err and not (below / "ran").exists()


@pytest.mark.parametrize("home", ["relative", "a file", "world-writable"])
def test_a_list_of_allowed_files_that_others_could_have_written_counts_for_nothing(
    home: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = LINES["data in a file"]
    (folder / "compress.toml").write_text(line)
    assert call(folder, "analyze", line, "--allow-config") == 0
    state = tmp_path / "state"
    if home == "relative":  # a folder of the project, filled by whoever made the project
        state.rename(folder / "state")
        monkeypatch.setenv("XDG_STATE_HOME", "state")
        monkeypatch.setenv("HOME", "home")
    elif home == "world-writable":
        (state / "compress" / "allowed").chmod(0o777)
    else:
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "compress.toml"))
    assert call(folder, "analyze", line) == 2
    assert not (folder / "ran").exists()


def test_where_it_cannot_be_remembered_it_is_allowed_for_the_run_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = LINES["data in a file"]
    (folder / "compress.toml").write_text(line)
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    assert call(folder, "analyze", line, "--allow-config") == 0
    told = capsys.readouterr().err
    assert "note: allowed for this run only" in told and (folder / "ran").exists()
    assert call(folder, "analyze", line) == 2


def test_a_pipe_in_the_place_of_the_file_is_passed_by(folder: Path) -> None:
    os.mkfifo(folder / "compress.toml")
    os.mkfifo(folder / "pyproject.toml")
    assert main(["analyze", "model.pt"]) == 0
