"""Every `compress …` line of the pages about models and data is a command line that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from compressor.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"


def commands(page: str) -> list[list[str]]:
    """The command lines in code of a page, in blocks and between backticks, each part of a pipe alone."""
    text = (DOCS / page).read_text(encoding="utf-8").replace("\\\n", " ").replace("\\|", "|")
    code = re.findall(r"^(compress .*)$", text, re.MULTILINE) + re.findall(r"`(compress [^`]*)`", text)
    lines = [part.strip() for line in code for part in re.split(r" \| ", line)]
    lines = [re.sub(r"\s[<>]\s*\S+.*$", "", line) for line in lines if line.startswith("compress ")]
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("page", ["models.md", "data.md", "ci.md"])
def test_what_the_page_says_is_taken(
    page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands(page)
    assert len(found) >= 3
    for words in found:
        assert main([*words, "--print-config"]) == 0, (words, capsys.readouterr().err)


def test_twin_a_line_with_an_unknown_option_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "m.pt", "--ration", "3x", "--print-config"]) == 2
    assert "--ration" in capsys.readouterr().err
