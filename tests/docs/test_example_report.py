"""The example page against today's pages and commands; what a run measures is its own matter."""

from __future__ import annotations

import html
import re
import shlex

import pytest

from compressor.cli.main import main
from docs.example_report import PAGE, PICTURE, demo_command
from tests.report.html.test_pages import PAGES, faults


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def commands(page: str) -> list[list[str]]:
    return [shlex.split(html.unescape(text)) for text in re.findall(r"<pre><code>(compress .*?)</code></pre>", page)]


def old(page: str) -> list[str]:
    """What of an example is not as today's pages of a pruning run are."""
    found = commands(page)
    refused = [" ".join(words) for words in found if main([*words[1:], "--print-config"]) != 0]
    wanted = headings(PAGES["prune"]())
    return [*refused, *(faults(page)), *([] if headings(page) == wanted else ["other sections"])]


def test_the_example_is_of_todays_commands_and_sections(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert old(page) == [], "run: python -m docs.example_report"
    (made,) = commands(page)
    asked = demo_command()
    assert made[:3] == asked[:3] and made[made.index("--ratio") + 1] == asked[asked.index("--ratio") + 1]
    assert made[made.index("--distill") + 1] == asked[asked.index("--distill") + 1]
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()


def test_twin_an_older_example_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    train = page.replace("<pre><code>compress prune", "<pre><code>compress train")
    assert old(train)[0].startswith("compress train")
    assert "other sections" in old(page.replace("<h2>What is left</h2>", ""))
    capsys.readouterr()
