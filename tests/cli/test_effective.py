"""`--print-config`: what a command would use, with where it is from, fit to be a compress.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("analyze", "prune", "retrain", "compact", "export", "bench")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_toml_and_runs_nothing(run: Any, here: Path, command: str) -> None:
    done = run(command, "no-such-file.pt", "--print-config")
    assert (done.code, done.err) == (0, "")
    (table,) = tomllib.loads(done.out).items()
    assert table[0] == command
    assert table[1]["seed"] == 0
    assert sorted(path.name for path in here.iterdir()) == ["data.npz", "model.pt", "net.py"]


def test_the_source_of_every_value_is_told(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "compress.toml").write_text('device = "cpu"\n[prune]\nratio = "13x"\nkeep = ["a b", "c"]\n')
    monkeypatch.setenv("COMPRESS_SEED", "7")
    done = run("prune", "m.pt", "--lr", "0.01", "--print-config", "--json")
    rows = done.json["options"]
    assert rows["lr"] == {"value": 0.01, "from": "command line"}
    assert rows["seed"] == {"value": 7, "from": "COMPRESS_SEED"}
    assert rows["ratio"] == {"value": "13x", "from": str(here / "compress.toml")}
    assert rows["floor"] == {"value": 0.05, "from": "default"}
    assert (done.json["schema"], done.json["command"]) == ("compress.config/1", "prune")


def test_what_is_printed_is_read_back_as_the_same(run: Any, here: Path) -> None:
    given = ("--lr", "0.01", "-r", "13x", "--keep", 'a"b', "--keep", "c", "--augment", "--trust-pickle", "-o", "out")
    first = run("prune", "m.pt", *given, "--print-config")
    assert first.code == 0, first.err
    (here / "compress.toml").write_text(first.out)
    second = run("prune", "m.pt", "--trust-pickle", "-o", "out", "--print-config")
    assert second.code == 0, second.err

    def plain(text: str) -> list[str]:
        return [line.rpartition("  # ")[0].rstrip() for line in text.splitlines()[1:]]

    assert plain(second.out) == plain(first.out)
    assert 'keep = ["a\\"b", "c"]' in plain(first.out)
    assert any(line.startswith("# trust-pickle = true") for line in plain(first.out))
    assert any(line.startswith("# teacher") or line.startswith("# plugin = unset") for line in plain(first.out))


def test_a_config_that_is_wrong_is_still_refused(run: Any, here: Path) -> None:
    (here / "compress.toml").write_text("[prune]\nratoi = 3\n")
    done = run("prune", "m.pt", "--print-config")
    assert (done.code, "nearest known: ratio" in done.err) == (2, True)
    (here / "compress.toml").write_text("print-config = true\n")
    assert "goes on the command line only" in run("prune", "m.pt").err
