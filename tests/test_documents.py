"""What documents say in prose, held against the code; tables have tests of their own beside what makes them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from compressor.asking import Recipe
from compressor.asking.gates import METRICS
from compressor.asking.recipe import DISTILL_WITH_TEACHER
from compressor.cli.main import INTERRUPTED
from compressor.cli.signals import EXIT_CODES
from compressor.errors import CompressError, GateError, UsageError

ROOT = Path(__file__).parents[1]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def all_errors(kind: type[CompressError] = CompressError) -> set[type[CompressError]]:
    return {kind, *(found for child in kind.__subclasses__() for found in all_errors(child))}


def test_the_defaults_of_distillation_are_told_as_they_are() -> None:
    told = re.search(r"`--distill (\d\.\d+)`\); `retrain` with a `--teacher` takes (\d\.\d+)", page("docs/methods.md"))
    assert told is not None
    assert (float(told[1]), float(told[2])) == (Recipe().distill, DISTILL_WITH_TEACHER)


def test_every_exit_code_of_an_error_object_is_told() -> None:
    told = re.search(r"Exit code ([\d, ]+) or (\d+) gives `compress.error/1`", page("docs/json.md"))
    assert told is not None
    codes = {int(code) for code in (*told[1].split(","), told[2])}
    assert codes == {*(error.exit_code for error in all_errors()), INTERRUPTED, *EXIT_CODES}
    assert {GateError.exit_code, UsageError.exit_code} < codes


@pytest.mark.parametrize("code", sorted({*(error.exit_code for error in all_errors()), INTERRUPTED}))
@pytest.mark.parametrize("name", ["README.md", "docs/ci.md"])
def test_every_exit_code_has_its_meaning(name: str, code: int) -> None:
    assert re.search(rf"(\| {code} \||(^|[ ·:]){code}\s[a-z])", page(name), re.MULTILINE), (name, code)


def test_every_gate_of_bench_is_in_its_page() -> None:
    text = page("docs/bench.md")
    for metric in METRICS["bench"]:
        assert f"`{metric}`" in text, metric


def damaged_files() -> int:
    """Entries of the tables of damaged and hostile files."""
    statements = [s for path in (ROOT / "tests/bad").glob("test_*.py") for s in ast.parse(path.read_text("utf-8")).body]
    tables = [
        s.value for s in statements if isinstance(s, ast.Assign | ast.AnnAssign) and isinstance(s.value, ast.Dict)
    ]
    return sum(len(table.keys) for table in tables)


def test_there_are_hundreds_of_damaged_files() -> None:
    assert "`tests/bad/` holds hundreds" in page("docs/models.md") and damaged_files() > 200


def named_paths(text: str) -> set[str]:
    """Paths below the root that a text names in backticks; with a `*` they are globs."""
    return {path for path in re.findall(r"`((?:[a-z_]+/)+[\w.*-]+)`", text) if "." in path}


def test_what_contributing_names_is_there() -> None:
    paths = named_paths((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    missing = [path for path in paths if not any((*ROOT.glob(path), *(ROOT / "compressor").glob(path)))]
    assert len(paths) > 20 and missing == []
    assert named_paths("see `sparsity/choice.py` and `cli/nothing.py`") == {"sparsity/choice.py", "cli/nothing.py"}


STUMBLED_OVER = (
    r"hold how (is|was) ",
    r"so many(th)? (position|time|step|bytes|filters|phases|parts)",
    r"\b(is|are) none[;,.]? (the|they)\b",
    r"number that is none",
    r"form that there is not",
    r"says nothing here",
    r"of what is measured to be",
    r"\bby turns\b",
    r"values? that cannot be meant",
    r"(?<!there )is none that\b",
    r"is none of (the|our)\b",
    r"that there are not\b",
)
"""Word by word from another language: a reader of English has to read these twice."""


def prose() -> dict[str, str]:
    """All text that a user or a developer reads, in one line each file."""
    pages = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    code = [str(path.relative_to(ROOT)) for path in (ROOT / "compressor").rglob("*.py")]
    return {name: " ".join(page(name).split()) for name in (*pages, *code)}


def stumbled_over(texts: dict[str, str]) -> list[str]:
    return [
        f"{name}: {text[max(found.start() - 30, 0) : found.end() + 30]}"
        for name, text in texts.items()
        for pattern in STUMBLED_OVER
        for found in re.finditer(pattern, text)
    ]


def test_no_sentence_has_to_be_read_twice() -> None:
    assert stumbled_over(prose()) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "it must never hold how is trained",
        "only every so manyth position is taken",
        "a number that is none",
        "a form that there is not",
        "an option that says nothing here",
        "auto: of what is measured to be good",
        "both, by turns",
        "values that cannot be meant",
    ],
)
def test_a_sentence_of_that_kind_is_found(sentence: str) -> None:
    assert stumbled_over({"x": sentence}) != []


MAX_WIDTH = 120


def too_wide(text: str) -> list[str]:
    """Lines of prose beyond the width of the code; tables, blocks of code and what is generated are as they are."""
    found: list[str] = []
    in_code = is_generated = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif line.startswith("<!-- "):
            is_generated = "begin" in line
        elif not (in_code or is_generated or line.startswith("|")) and len(line) > MAX_WIDTH:
            found.append(line)
    return found


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_pages_have_one_width_of_line(name: str) -> None:
    assert too_wide(page(name)) == []


def test_a_line_that_is_too_wide_is_found() -> None:
    wide = "word " * 25
    assert too_wide(f"{wide}\n| {wide} |\n```\n{wide}\n```\n<!-- x: begin -->\n{wide}\n<!-- x: end -->\n") == [wide]
