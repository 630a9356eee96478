"""Mutants: one change each, only where code runs, judged in a copy, and every result kept."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import mutants as tool
from benchmarks.mutants import Mutant, judge, judges, mutants

TEXT = '''"""1 + 1 in a text."""

WIDTH: tuple[1, 2] = (-3, "a < b")


def f(x: int = 2, *, deep: bool = True) -> float:
    """Not x < 0."""
    if x <= WIDTH[0] and not deep or (x is None):
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


def test_mutants_live_in_a_copy_and_a_result_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = "sparsity/likes"
    before = (tool.PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    wanted: list[Mutant] = list(mutants(module, before))[:3]
    seen: list[str] = []

    def passes(folder: Path, tests: Sequence[str]) -> bool:
        seen.append((folder / "compressor" / f"{module}.py").read_text(encoding="utf-8"))
        return seen[-1] != wanted[0].of(before)

    monkeypatch.setattr(tool, "passes", passes)
    results = tmp_path / "results.jsonl"
    judge(wanted[:2], results)
    judge(wanted, results)
    assert seen == [before, wanted[0].of(before), wanted[1].of(before), before, wanted[2].of(before)]
    kept = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [line["killed"] for line in kept] == [True, False, False]
    assert (tool.PACKAGE / f"{module}.py").read_text(encoding="utf-8") == before
    assert capsys.readouterr().out.count("SURVIVED") == 2


def test_tests_that_fail_without_a_mutant_judge_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = list(mutants("sparsity/likes", (tool.PACKAGE / "sparsity/likes.py").read_text(encoding="utf-8")))[:1]
    monkeypatch.setattr(tool, "passes", lambda folder, tests: False)
    with pytest.raises(SystemExit, match="its tests fail as it is"):
        judge(wanted, tmp_path / "results.jsonl")
