"""Terminal and pipe."""

from __future__ import annotations

import io
from typing import Any

from compressor.report.console import facts, group, lines, make_table, plain_text, print_to


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report() -> Any:
    table = make_table("Layer", ">Params", title="Layers")
    table.add_row("conv1", "520")
    table.add_row("a.much.longer.name", "25,050")
    return group(lines("headline", None, "second"), None, table, lines())


def test_a_pipe_gets_plain_aligned_lines() -> None:
    assert plain_text(report()) == (
        "headline\nsecond\n\nLayers\nLayer               Params\nconv1                  520\n"
        "a.much.longer.name  25,050\n"
    )


def test_a_pipe_gets_no_colour_box_or_trailing_blank() -> None:
    stream = io.StringIO()
    print_to(stream, report())
    assert "\x1b" not in stream.getvalue()
    assert not set(stream.getvalue()) & set("│─╭╮╰╯┃━")
    assert all(line == line.rstrip() for line in stream.getvalue().splitlines())


def test_a_terminal_gets_colour(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    print_to(stream, report())
    assert "\x1b[" in stream.getvalue()


def test_prose_is_one_line_in_a_pipe_however_long() -> None:
    text = "warning: " + "word " * 60 + "end"
    assert plain_text(lines(text) or "") == text + "\n"


def test_square_brackets_are_text_not_markup() -> None:
    table = make_table("Name")
    table.add_row("x[bold]y")
    assert "x[bold]y" in plain_text(group(lines("a[red]b"), table))
    assert "a[red]b" in plain_text(group(lines("a[red]b"), table))


def test_facts_are_never_cut() -> None:
    rows = [("difference", "x" * 150), ("norms", "a " * 80 + "end")]
    told = plain_text(facts(rows)).split("\n")
    assert told[0] == "difference  " + "x" * 150
    assert told[1].startswith("norms       a a") and told[1].endswith("end")
