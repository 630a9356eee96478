"""The form of a result: JSON, CSV, Markdown, text."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import pytest

from compressor.cli.options import OutputOptions, RunOptions
from compressor.cli.printing import Printing, table_forms
from compressor.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Options(OutputOptions, RunOptions):
    """As those of a command that writes a model."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Printing("text")),
        ({"json": True}, Printing("json")),
        ({"table": "text"}, Printing("text")),
        ({"table": "markdown"}, Printing("markdown")),
        ({"table": "csv"}, Printing("csv")),
        ({"table": "csv:explanation.slices"}, Printing("csv", "explanation.slices")),
        ({"table": "text", "output": "-"}, Printing("text")),
    ],
)
def test_forms_are_read(options: dict[str, Any], expected: Printing) -> None:
    assert Options(**options).printing == expected


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"table": "tsv"}, "--table tsv: write text, markdown, csv"),
        ({"table": "markdown:layers"}, "--table markdown:layers: write text"),
        ({"table": "csv:"}, "--table csv:: write text"),
        ({"table": "csv", "json": True}, "--json and --table csv both want"),
        ({"table": "csv", "output": "-"}, "-o - and --table csv both want"),
    ],
)
def test_what_cannot_be_printed_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        _ = Options(**options).printing


def test_csv_of_a_command_has_the_numbers_of_its_json(run: Any) -> None:
    body = run("analyze", "model.pt", "--json").json
    done = run("analyze", "model.pt", "--table", "csv")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [(row["name"], int(row["params"])) for row in rows] == [(x["name"], x["params"]) for x in body["layers"]]
    units = list(csv.DictReader(io.StringIO(run("analyze", "model.pt", "--table", "csv:groups").out)))
    assert len(units) == len(body["groups"])


def test_markdown_of_a_command_has_its_tables(run: Any) -> None:
    done = run("export", "model.pt", "--table", "markdown")
    assert done.code == 0, done.err
    assert "| size | " in done.out and "wrote model.onnx" in done.out


def test_a_form_that_there_is_not_stops_before_the_work(run: Any, here: Any) -> None:
    done = run("export", "model.pt", "--table", "html")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("compress export: --table html: write text")
    assert not (here / "model.onnx").exists()


def test_forms_are_completed() -> None:
    assert table_forms("") == ["text", "markdown", "csv"] and table_forms("m") == ["markdown"]
