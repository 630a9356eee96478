"""What documents say in prose, held against the code; tables have tests of their own beside what makes them."""

from __future__ import annotations

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


def named_paths(text: str) -> set[str]:
    """Paths below the root that a text names in backticks; with a `*` they are globs."""
    return {path for path in re.findall(r"`((?:[a-z_]+/)+[\w.*-]+)`", text) if "." in path}


def test_what_contributing_names_is_there() -> None:
    paths = named_paths((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    missing = [path for path in paths if not any((*ROOT.glob(path), *(ROOT / "compressor").glob(path)))]
    assert len(paths) > 20 and missing == []
    assert named_paths("see `sparsity/choice.py` and `cli/nothing.py`") == {"sparsity/choice.py", "cli/nothing.py"}
