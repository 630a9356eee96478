"""`--json`: one object, its schema first, its shape as the golden files and docs/json.md say.

`COMPRESS_GOLDEN=write pytest tests/cli/test_json.py` writes the golden files anew, and
`python -m docs.generated` the page.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from docs.make_json_page import undocumented

GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("COMPRESS_GOLDEN") == "write"
TRAIN = ("--batch-size", "16", "--device", "cpu")
BENCH = ("--min-seconds", "0.01", "--max-seconds", "0.3", "--min-runs", "5", "--warmup", "1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "analyze": ("analyze", "model.pt"),
    "explain": ("analyze", "model.pt", "--explain", "conv2:1"),
    "prune": ("prune", "model.pt", "-r2x", "--epochs", "1", "--retrain-epochs", "1", *TRAIN, "--require", "ratio>=2"),
    "retrain": ("retrain", "p.pt", "--epochs", "1", *TRAIN, "--require", "loss>=0"),
    "compact": ("compact", "p.pt", "--require", "ratio>=2"),
    "export": ("export", "p.pt", "--require", "size<=1MiB"),
    "bench": ("bench", "model.pt", "p.pt", *BENCH, "--accuracy", "--require", "ratio>=1"),
}  # fmt: skip


def skeleton(value: Any) -> Any:
    """The shape of an answer: keys stay, values become the name of their type, lists their first element."""
    if isinstance(value, dict):
        return {key: skeleton(part) for key, part in value.items()}
    if isinstance(value, list):
        return [skeleton(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return json.dumps(value) if value is None else "bool"
    return {str: "text", int: "int", float: "float"}[type(value)]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, files: Path) -> dict[str, dict[str, Any]]:
    """What every command says with --json."""
    import contextlib
    import io

    from compressor.cli.main import main

    folder = tmp_path_factory.mktemp("json")
    for file in files.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    found: dict[str, dict[str, Any]] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, command in COMMANDS.items():
            out = io.StringIO()
            more = ("-o", "p.pt") if name == "prune" else ()
            with contextlib.redirect_stdout(out):
                assert main([*command, *more, "--json", "-q"]) == 0, name
            assert out.getvalue().count("\n") == 1
            found[name] = json.loads(out.getvalue())
    finally:
        os.chdir(before)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_shape_is_the_golden_one(answers: dict[str, dict[str, Any]], name: str) -> None:
    shape = {**skeleton(answers[name]), "schema": answers[name]["schema"]}
    for free in ("warnings", "notes"):  # empty or not by the machine and the day
        if free in shape:
            shape[free] = []
    file = GOLDEN / f"{name}.json"
    if WRITE:
        file.write_text(json.dumps(shape, indent=1) + "\n", encoding="utf-8")
    assert shape == json.loads(file.read_text(encoding="utf-8"))
    assert next(iter(answers[name])) == "schema"
    assert answers[name]["schema"] == f"compress.{COMMANDS[name][0]}/1"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_is_explained(answers: dict[str, dict[str, Any]], name: str) -> None:
    assert undocumented(name, answers[name]) == []
    assert undocumented(name, {**answers[name], "secret": 1}) == ["secret"]


def test_the_twin_of_the_shape_sees_a_change(answers: dict[str, dict[str, Any]]) -> None:
    changed = {**answers["prune"], "got": "2.0"}
    assert skeleton(changed) != skeleton(answers["prune"])
