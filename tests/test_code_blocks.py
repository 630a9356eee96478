"""Every block of code in README and docs is code: commands are taken by the program, the rest is parsed, and files that
one line of a block reads were written by one before it.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

import compressor
from compressor.cli.commands import command_functions
from compressor.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
COMMANDS = (*command_functions(), "env")
SUFFIXES = {"prune": ".pruned.pt", "retrain": ".retrained.pt", "compact": ".compact.pt", "export": ".onnx"}
_OTHER = ("console", "", "yaml", "html", "text", "mermaid", "diff", "sh", "bash")


class Block(NamedTuple):
    page: str
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^[ >]*```([\w+-]*)[^\n]*\n(.*?)^[ >]*```", text, re.MULTILINE | re.DOTALL)
    return [Block(page, language, body) for language, body in found]


def commands(text: str) -> list[list[str]]:
    """The words of every command line of ours in a block, each part of a pipe alone, without what is only prose."""
    joined = re.sub(r"^\$ .*\ncompress \w+: ", "", text.replace("\\\n", " "), flags=re.MULTILINE)  # shown to fail
    lines = [re.sub(r"^\s*\$ ", "", line).strip() for line in joined.splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r" \|\|? | && |; ", line.partition("  #")[0])]
    parts = [re.sub(r"\s+(->\s.*|[<>]\s*\S+.*)$", "", part) for part in parts if part.startswith("compress ")]
    parts = [re.sub(r"\s+\([^)]*\)$", "", part) for part in parts]
    return [shlex.split(part)[1:] for part in parts if part.split()[1:2] and part.split()[1] in COMMANDS]


def needs_data(words: list[str]) -> bool:
    """Whether a prune or retrain line would end for want of data: what is no checkpoint of ours remembers none."""
    trains = words[0] == "retrain" or (words[0] == "prune" and not {"--no-retrain", "--dry-run", "-n"} & set(words))
    model = words[1]
    ours = model.endswith(".pt") or model == "-" or "$" in model
    return trains and not ours and not any(word.startswith(("--data", "--train")) for word in words)


def unmade(lines: list[list[str]]) -> list[str]:
    """Files that a line reads under a name that earlier commands give, while none of the lines before it wrote it."""
    made: set[str] = set()
    given: set[str] = set()
    missing: list[str] = []
    for words in lines:
        if words[0] in ("env",):
            continue
        read = [word for word in words[1:] if re.search(r"\.(pruned|retrained|compact)(\.compact)*\.pt$", word)]
        targets = {words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-o", "--output")}
        bases = {word.partition(".")[0] for word in made if word.endswith(".pt")}
        missing += [w for w in read if w.partition(".")[0] in bases and w not in made | targets | given]
        given |= set(read)
        made |= targets
        if words[0] in SUFFIXES and not targets:
            stem = re.sub(r"\.\w+$", "", words[1])
            made.add(re.sub(r"\.(pruned|retrained|compact)$", "", stem) + SUFFIXES[words[0]])
    return missing


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_are_taken(page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        lines = commands(block.text)
        for words in lines:
            asked = [re.sub(r"\$\{?\w+\}?", "x", word) for word in words]
            shown = [] if words[0] == "env" else ["--print-config"]
            assert main([*asked, *shown]) == 0, (page, words, capsys.readouterr().err)
            assert not needs_data(words), (page, words)
        assert not unmade(lines), (page, unmade(lines))


@pytest.mark.parametrize("page", PAGES)
def test_other_code_is_parsed(page: str) -> None:
    for block in blocks(page):
        if block.language == "python":
            tree = ast.parse(block.text)
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and node.value.id == "compressor"
                ):
                    assert hasattr(compressor, node.attr) or (ROOT / "compressor" / node.attr).exists(), (
                        page,
                        node.attr,
                    )
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)
        else:
            assert block.language in _OTHER, (page, block.language)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("compress prune b -r 2x -o b.pruned.pt\ncompress compact b.pruned.pt\ncompress export b.pruned.compact.pt",
         ["b.pruned.compact.pt"]),
        ("compress prune b.pt -r 2x\ncompress compact b.pruned.pt\ncompress export b.compact.pt", []),
    ],
)  # fmt: skip
def test_twin_a_file_that_nobody_wrote_is_found(text: str, wrong: list[str]) -> None:
    assert unmade(commands(text)) == wrong


def test_twin_a_line_without_data_is_found() -> None:
    assert needs_data(["prune", "model.onnx", "-r", "3x"])
    assert not needs_data(["prune", "model.onnx", "-r", "3x", "--no-retrain"])
    assert not needs_data(["prune", "model.pt", "-r", "3x"])
