"""Names and notes out of a stranger's file, in whatever a command writes: no terminal obeys them, nobody is misled."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rich.console import Group
from rich.table import Table
from rich.text import Text

from compressor.cli.main import main
from compressor.formats import save
from compressor.printable import one_line, printable
from compressor.program import Program, Step
from compressor.report.console import SafeConsole, group, lines, make_table, plain_text, print_to
from compressor.report.html.markup import tag
from compressor.report.jsonable import escaped, to_json
from compressor.report.progress import Bars, Lines
from compressor.report.tabular import to_csv, to_markdown
from tests.test_layers import sources

ORDERS = ("\x1b[31m", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2066", "\u200f", "\x00", "\x7f", "\r", "\b", "\u2028",
          "\ufeff", "\U000e0041", "\ud800")  # fmt: skip
TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(ORDERS)


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


COLOURS = re.compile(r"\x1b\[[0-9;]*[a-zA-Z]|\x1b\[\?\d+[lh]|\r")
"""What rich itself writes to a terminal: colours, and the movements of a bar."""


def body_of(text: str) -> Group:
    table = make_table("Name", ">Number", title=text)
    table.add_row(text, "1")
    table.add_row(Text(text), text)
    return group(lines(text, "more"), table, Text(text, style="bold"))


def on_terminal(text: str) -> str:
    stream = Terminal()
    print_to(stream, body_of(text))
    return COLOURS.sub("", stream.getvalue())


def progress_lines(text: str) -> str:
    stream = io.StringIO()
    told = Lines(stream)
    told.start(text, 2, text)
    told.note(text)
    told.finish(text, **{text: 1.0})
    return stream.getvalue()


def progress_bars(text: str) -> str:
    from rich.progress import Progress, TextColumn

    stream = Terminal()
    columns = (TextColumn("{task.description}", markup=False), TextColumn("{task.fields[values]}", markup=False))
    with Progress(*columns, console=SafeConsole(file=stream), transient=True) as shown:
        bars = Bars(shown)
        bars.start(text, 2, "step")
        bars.advance(1, **{text: 1.0})
        bars.note(text)
        bars.finish(text)
    return COLOURS.sub("", stream.getvalue())


WRITERS: dict[str, Callable[[str], str]] = {
    "table in a pipe": lambda text: plain_text(body_of(text)),
    "table on a terminal": on_terminal,
    "markdown": lambda text: to_markdown(body_of(text)),
    "csv": lambda text: to_csv("analyze", {"layers": [{"name": text, "other": [text], "deep": {"name": text}}]}),
    "json": lambda text: to_json("x/1", {"a": text, text: [text, {text: text}]}),
    "html": lambda text: str(tag("p", text, tag("i", text, title=text))),
    "progress in a log": progress_lines,
    "progress on a terminal": progress_bars,
    "a message": printable,
    "a line": one_line,
}


@given(text=TEXTS)
@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_stands_in_a_text_nothing_obeys_it(writer: str, text: str) -> None:
    written = WRITERS[writer](text)
    spaces = "\u00a0\t" if writer == "html" else ""
    left = {c for c in written if not (c.isprintable() or c == "\n" or c in spaces)}
    assert {c for c in left if writer != "html" or not c.isspace()} == set(), [hex(ord(c)) for c in left]


@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "a line"])
def test_twin_letters_of_every_script_come_through(writer: str) -> None:
    for word in ("conv1", "слой", "層", "שכבה", "naïve", "é", "🙂"):
        assert word in WRITERS[writer](word), word


def test_twin_without_the_console_of_the_house_an_escape_comes_through() -> None:
    from rich.console import Console

    stream = io.StringIO()
    table = Table()
    table.add_column("\x1b[31mname")
    Console(file=stream, color_system=None).print(table)
    assert "\x1b" in stream.getvalue()


@given(value=st.recursive(TEXTS, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3)))
def test_json_loses_nothing_by_it(value: Any) -> None:
    assert json.loads(to_json("x/1", {"value": value}))["value"] == value


@given(text=st.text(max_size=12))
def test_what_print_config_prints_is_toml(text: str) -> None:
    import tomllib

    assert tomllib.loads(f"a = {escaped(json.dumps(text, ensure_ascii=False), wide=True)}")["a"] == text


def test_there_is_no_other_console() -> None:
    """A console of its own somewhere would write what a file says as it stands there."""
    made = [name for name, text in sources().items() if re.search(r"(?<!Safe)\bConsole\(", text)]
    assert made == []
    echoing = [
        (name, line.strip())
        for name, text in sources().items()
        for line in text.splitlines()
        if "typer.echo(" in line and not re.search(r"printable|to_json|message\}|text, nl=False|__version__", line)
    ]
    assert echoing == []


NOTE = "a note \x1b]0;owned\x07\x1b[2J \u202egnp.exe\u2066 \x9b1A\x00\r end"


def hostile(program: Program, path: Path) -> None:
    """A checkpoint whose history is written by a stranger."""
    record = program.record
    step = Step(NOTE, {NOTE: [NOTE]}, {"params": 12, NOTE: 0.5, "before": {NOTE: 1.0}}, 1, NOTE, {NOTE: NOTE}, NOTE)
    steps = (step, step)
    changed = {"arch": NOTE, "data": NOTE, "arch_args": {NOTE: NOTE}, "notes": (NOTE,), "preprocessing": {NOTE: NOTE}}
    from dataclasses import replace

    save(program.replace(record=replace(record, steps=steps, dense_params=99, **changed)), path)
    fresh = replace(record, arch=NOTE, notes=(NOTE,))
    save(program.replace(record=fresh), path.with_name("fresh.pt"))


def foreign(path: Path) -> None:
    """An ONNX file whose names are written by one."""
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), f"w{NOTE}")
    x, y = (
        helper.make_tensor_value_info(f"{n}{NOTE}", TensorProto.FLOAT, ["N", size])
        for n, size in zip("xy", (4, 3), strict=True)
    )
    node = helper.make_node("MatMul", [f"x{NOTE}", f"w{NOTE}"], [f"y{NOTE}"], name=f"layer{NOTE}", doc_string=NOTE)
    graph = helper.make_graph([node], NOTE, [x], [y], [weight], doc_string=NOTE)
    model = helper.make_model(
        graph, producer_name=NOTE, producer_version=NOTE, opset_imports=[helper.make_opsetid("", 17)]
    )
    helper.set_model_props(model, {NOTE: NOTE})
    onnx.save(model, str(path))


COMMANDS = {
    "analyze": [],
    "prune": ["-r", "1.2x", "-m", "magnitude", "--no-retrain", "-n"],
    "compact": ["--allow-noop", "-o", "out.pt", "--force"],
    "export": ["-o", "out.onnx", "--force"],
    "bench": ["--min-runs", "2", "--min-seconds", "0"],
}
FORMS = {
    "text": [], "verbose": ["-v"], "markdown": ["--table", "markdown"], "csv": ["--table", "csv:summary"],
    "json": ["--json"], "report": ["--report", "page.html"], "config": ["--print-config"],
}  # fmt: skip


RUNS = [(command, form) for command in COMMANDS for form in FORMS if command != "export" or form in ("verbose", "json")]


@pytest.mark.parametrize(("command", "form"), RUNS)
@pytest.mark.parametrize("model", ["old.pt", "fresh.pt", "foreign.onnx", f"no such {NOTE.replace(chr(0), '')}.pt"])
def test_no_command_passes_on_what_a_file_says(
    folder: Path, program: Program, capsys: pytest.CaptureFixture[str], model: str, command: str, form: str
) -> None:
    hostile(program, folder / "old.pt")
    foreign(folder / "foreign.onnx")
    code = main([command, model, *COMMANDS[command], *FORMS[form]])
    told = capsys.readouterr()
    assert is_harmless(told.out) and is_harmless(told.err), f"{told.out!r} {told.err!r}"
    assert "bug in compress" not in told.err
    if model.endswith(".pt") and not model.startswith("no such") and command != "prune":
        assert code == 0, told.err
    if code == 0 and form == "report":
        page = (folder / "page.html").read_text()
        assert not set(page) & {"\x1b", "\u202e", "\u2066", "\x9b", "\x00", "\x07", "\r"}
    if code == 0 and form == "csv":
        assert list(csv.reader(io.StringIO(told.out)))
