"""Results as CSV and Markdown: raw numbers in one, the shown tables in the other."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import pytest
from rich.panel import Panel
from rich.text import Text

from compressor.errors import UsageError
from compressor.report.console import group, lines, make_table
from compressor.report.tabular import tables, to_csv, to_markdown


@dataclass(frozen=True)
class Row:
    name: str
    median_s: float
    shape: tuple[int, ...]
    subject: dict[str, int]


BODY = {
    "model": "a.pt",
    "ratio": 1 / 3,
    "worst": float("nan"),
    "metrics": {"accuracy": 0.98},
    "explanation": {"slices": [{"parameter": "w", "axis": 0}]},
    "timings": (Row('conv "1", first\nline', 1.25e-05, (2, 3), {"size_bytes": 7}), Row("fc", 0.1, (), {})),
    "layers": (),
    "sizes": (1, 2, 5),
}


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_result_falls_into_tables() -> None:
    found = tables(BODY)
    assert list(found) == ["explanation.slices", "timings", "summary"]
    assert found["summary"] == [
        {"model": "a.pt", "ratio": 1 / 3, "worst": None, "metrics.accuracy": 0.98, "layers": "[]", "sizes": "[1, 2, 5]"}
    ]


def test_csv_keeps_every_digit_and_every_character() -> None:
    first, second = read(to_csv("bench", BODY))
    assert first == {
        "name": 'conv "1", first\nline', "median_s": "1.25e-05", "shape": "[2, 3]", "subject.size_bytes": "7",
    }  # fmt: skip
    assert second["subject.size_bytes"] == ""  # a column that only some rows have
    (summary,) = read(to_csv("bench", BODY, "summary"))
    assert float(summary["ratio"]) == 1 / 3 and summary["worst"] == ""


def test_each_command_has_a_main_table() -> None:
    assert to_csv("bench", BODY) == to_csv("bench", BODY, "timings")
    assert to_csv("export", BODY) == to_csv("export", BODY, "summary")
    assert to_csv("prune", BODY) == to_csv("prune", BODY, "timings")  # no layers: the longest there is


def test_a_table_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--table csv:units: .* it has explanation\.slices, timings, summary"):
        to_csv("bench", BODY, "units")


def test_markdown_is_the_tables_as_shown() -> None:
    table = make_table("Layer", ">Params", title="Cut *hard*")
    table.add_row("conv|1", "1,234")
    table.add_row(Text("<b>"), "7")
    shown = group(lines("cpu, batch 1", style="bold"), table, lines("one", "two"), None, group(Panel("drawn")))
    text = to_markdown(shown)
    assert text.startswith("**cpu, batch 1**\n\n**Cut \\*hard\\***\n\n| Layer | Params |\n| --- | --: |\n")
    assert "| conv\\|1 | 1,234 |\n| \\<b> | 7 |\n" in text
    assert "\n\none  \ntwo\n" in text
    assert "```text\n" in text and "drawn" in text  # what has no Markdown stands as it is
