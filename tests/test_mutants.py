"""Mutants: one change each, only where code runs, judged in a copy, and every result kept."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks import mutants as tool
from benchmarks.judging import Change, Limits, Told, function_at, in_child
from benchmarks.mutants import Known, described, explained, judge, judges, mutants, summary

TEXT = '''"""1 + 1 in a text."""

WIDTH: tuple[1, 2] = (-3, "a < b")


def f(x: int = 2, *, deep: bool = True) -> float:
    """Not x < 0."""
    if x <= WIDTH[0] and not deep or (x is None) or list(zip(x, x, strict=True)):
        return f"{x + 1}"
    return (x + 0.5) * 4 if x in WIDTH else x**2
'''


def changed(text: str) -> set[tuple[str, str]]:
    return {(mutant.old, mutant.new) for mutant in mutants("m", text)}


def test_every_kind_of_change_is_made_and_none_in_texts_or_annotations() -> None:
    assert changed(TEXT) == {
        ("-3", "(3)"), ("3", "4"), ("2", "3"), ("True", "False"), ("<=", "<"), ("0", "1"), ("and", "or"), ("or", "and"),
        ("not deep", "(deep)"), ("is", "is not"), ("+", "-"), ("0.5", "1.5"), ("*", "/"), ("4", "5"), ("in", "not in"),
        ("**", "*"), ("(x + 0.5) * 4 if x in WIDTH else x**2", "((x + 0.5) * 4)"),
        ("(x + 0.5) * 4 if x in WIDTH else x**2", "(x ** 2)"),
    }  # fmt: skip


def test_every_mutant_is_python_and_one_change_beyond_ascii_too() -> None:
    text = "NAME = 'ä€' if 1 < 2 else 3  # ü\n" + TEXT
    for mutant in mutants("m", text):
        assert ast.dump(ast.parse(mutant.of(text))) != ast.dump(ast.parse(text)), mutant
        assert text[mutant.start : mutant.end] == mutant.old
        assert mutant.of(text).count("\n") == text.count("\n")


def test_brackets_stay_where_they_are() -> None:
    assert [m.of("x = (a) + (b)") for m in mutants("m", "x = (a) + (b)")] == ["x = (a) - (b)"]


def test_a_module_is_judged_by_its_mirror_and_those_that_are_named() -> None:
    assert judges("compaction/verify") == ("compaction/test_verify.py", "program/test_runs.py")
    with pytest.raises(SystemExit, match="no test file judges it"):
        judges("cli/nobody")


def test_every_judge_that_is_named_is_there() -> None:
    for module, tests in tool.JUDGES.items():
        assert (tool.PACKAGE / f"{module}.py").exists(), module
        assert all((tool.ROOT / "tests" / test).exists() for test in tests), module


class Noticed:
    """Instead of a `Judge`: notices all but one of the changes that it is given."""

    lives = ""
    asked: ClassVar[list[list[str]]] = []

    def __init__(self, folder: Path, module: str, tests: Sequence[str]) -> None:
        self.text = (folder / "compressor" / f"{module}.py").read_text(encoding="utf-8")
        assert not folder.is_relative_to(tool.ROOT) and (folder / "tests" / tests[0]).exists()

    def notice(self, changes: Sequence[Change], told: Told, *, quick: bool, excused: Collection[int]) -> list[int]:
        assert not excused
        self.asked.append([change.text for change in changes])
        assert self.text not in self.asked[-1]
        left = [number for number, change in enumerate(changes) if change.text == self.lives]
        for number in range(len(changes)):
            if number not in left:
                told(number, "tests/sparsity/test_likes.py::test_nobody")
            elif not quick:
                told(number, None)
        return left if quick else []


def test_a_result_is_kept_and_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    module = "sparsity/likes"
    text = tool.source(module)
    wanted = list(mutants(module, text))[:3]
    monkeypatch.setattr(tool, "Judge", Noticed)
    monkeypatch.setattr(Noticed, "asked", [])
    monkeypatch.setattr(Noticed, "lives", wanted[1].of(text))
    results = tmp_path / "results.jsonl"
    judge(wanted[:2], results, quick=True)
    assert f"may live  {wanted[1]}" in capfd.readouterr().out
    judge(wanted[:2], results)
    judge(wanted, results)
    judge(wanted, results)
    assert Noticed.asked == [[m.of(text) for m in part] for part in (wanted[:2], wanted[1:2], wanted[2:])]
    assert tool.source(module) == text
    known = Known(results)
    assert [line and bool(line["noticed"]) for line in map(known.of, wanted)] == [True, False, True]
    same = {described(wanted[1])}
    assert list(summary(wanted, known, same)) == [
        "sparsity: 2 of 2 noticed (100.0%), 1 more compute the same",
        "all: 2 of 2 noticed (100.0%), 1 more compute the same",
    ]
    assert list(summary(wanted, known, ()))[-2:] == [
        "all: 2 of 3 noticed (66.7%), 0 more compute the same",
        f"lives: {wanted[1]}",
    ]


def test_a_result_holds_as_long_as_what_it_was_judged_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noticed, lives = list(mutants("sparsity/likes", tool.source("sparsity/likes")))[:2]
    known = Known(tmp_path / "results.jsonl")
    known.add(noticed, "tests/test_mutants.py::test_brackets_stay_where_they_are")
    known.add(lives, None)
    again = Known(known.path)
    assert again.of(noticed) and again.of(lives)
    monkeypatch.setattr(tool, "text_of_test", lambda name: "another text")
    assert again.of(noticed) and not again.of(lives)
    monkeypatch.setattr(tool, "function_text", lambda file, name: "")
    assert not again.of(noticed)


def test_what_is_explained_is_a_change_that_lives() -> None:
    told = list(explained(tool.EXPLAINED.read_text(encoding="utf-8")))
    made = {module: {described(mutant) for mutant in mutants(module, tool.source(module))} for module, *_ in told}
    assert told and [one for one in told if one not in made[one[0]]] == []


def test_explanations_are_read_whatever_stands_in_the_line() -> None:
    lines = (
        "### `a/b`",
        "- `|` → `&` in `x = y | z`: why",
        "- no",
        "### `c`",
        "- `1` → `2` in `f(1,",
        "  3)`: `x` → `y` in `z`",
    )
    text = "\n".join(lines)
    assert list(explained(text)) == [("a/b", "x = y | z", "|", "&"), ("c", "f(1, 3)", "1", "2")]


PROJECT = {
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = ['--import-mode=importlib']\npythonpath = ['.']\n",
    "compressor/__init__.py": "",
    "compressor/m.py": """
import functools, os
TABLE = {"a": 1 + 1}

@functools.cache
def double(x):
    return x * 2

def ends(x):
    return os._exit(0) if x < 0 else x

def stops(x):
    if x < 0:
        raise SystemExit(0)
    return x

def spare(x):
    return x < 5

def never(x):
    return x < 6
""",
    "tests/test_m.py": """
import subprocess, sys
from compressor.m import TABLE, double, ends, spare, stops

def test_table():
    assert TABLE["a"] == 2

def test_double():
    assert double(3) == 6

def test_ends():
    assert ends(0) == 0

def test_stops():
    assert stops(0) == 0

def test_spare():
    assert spare(4) and not spare(6)

def test_elsewhere():
    code = "from compressor.m import never; raise SystemExit(never(6))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
""",
}


def judged(folder: Path, tests: Mapping[str, str] = PROJECT) -> subprocess.CompletedProcess[str]:
    """What a judge says of all changes of that project's module."""
    for name, text in tests.items():
        (folder / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "project" / name).write_text(text, encoding="utf-8")
    code = """
import os, sys
from pathlib import Path
from benchmarks.judging import Change, Judge
from benchmarks.mutants import mutants
folder = Path(sys.argv[1])
out = os.fdopen(os.dup(1), "w")
text = (folder / "compressor/m.py").read_text()
found = list(mutants("m", text))
Judge(folder, "m", ("test_m.py",)).notice(
    [Change(m.of(text), m.start) for m in found],
    excused=[n for n, m in enumerate(found) if (m.line, m.old) == (21, "6")],
    told=lambda n, by: print(found[n].line, found[n].old, found[n].new, by, sep=";", flush=True, file=out),
)
assert (folder / "compressor/m.py").read_text() == text
"""
    command = [sys.executable, "-c", code, str(folder / "project")]
    return subprocess.run(command, cwd=tool.ROOT, capture_output=True, text=True)


def test_changes_are_noticed_in_functions_tables_and_other_processes(tmp_path: Path) -> None:
    done = judged(tmp_path)
    assert done.returncode == 0, done.stderr
    told = {tuple(line.split(";")[:3]): line.split(";")[3].split("::")[-1] for line in done.stdout.splitlines()}
    assert told["3", "+", "-"] == told["3", "1", "2"] == "test_table"
    assert told["7", "*", "/"] == told["7", "2", "3"] == "test_double"
    assert told["10", "<", "<="] == "a limit"
    assert told["13", "<", "<="] == "test_stops"
    assert told["18", "<", "<="] == told["18", "5", "6"] == "None"
    assert told["21", "<", "<="] == "test_elsewhere"
    assert told["21", "6", "7"] == "None", "excused, so not asked again by other processes"


def test_tests_that_fail_without_a_change_judge_nothing(tmp_path: Path) -> None:
    for broken in ("def test_no():\n    assert 1 > 2\n", "import compressor.nowhere\n"):
        done = judged(tmp_path, {**PROJECT, "tests/test_m.py": broken})
        assert done.returncode == 1 and "its tests fail as it is" in done.stderr and not done.stdout
        assert "1 > 2" in done.stderr or "nowhere" in done.stderr


def test_a_child_answers_or_was_ended() -> None:
    assert in_child(lambda: {"a": [1, "x" * 10**6]}, Limits(60, 60))["a"][0] == 1
    assert in_child(lambda: os.kill(os.getpid(), 9), Limits(60, 60)) is None
    assert in_child(lambda: os._exit(0), Limits(60, 60)) is None
    assert in_child(lambda: time.sleep(60), Limits(60, 0)) is None
    with pytest.raises(SystemExit, match="an error of its own"):
        in_child(lambda: 1 / 0, Limits(60, 60))


def test_the_innermost_function_of_an_offset() -> None:
    text = "A = 1\n\n@deco(2)\ndef f(x=3):\n    'ä'; y = 4\n    def g():\n        return 5\n    return y\n"
    found = {digit: function_at(text, text.index(digit)) for digit in "12345"}
    assert found == {"1": None, "2": None, "3": None, "4": ("f", 3), "5": ("g", 6)}
