"""What a benchmark takes from another one, or from the package, is there: they run rarely, and fail late."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path for folder in ("benchmarks", "docs", "ci", "sample_models") for path in (ROOT / folder).glob("*.py")
)


def source_of(module: str) -> Path | None:
    """The file of a module of this project; None for anything else."""
    path = ROOT.joinpath(*module.split("."))
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return found[0] if found else None


def names_in(path: Path) -> set[str]:
    """What a module binds at its top, and the modules beside a package's own file."""
    found = {file.stem for file in path.parent.iterdir()} if path.name == "__init__.py" else set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return found


def missing(text: str) -> Iterator[str]:
    """Names that a script imports from this project and that are not there."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.partition(".")[0] not in ("benchmarks", "compressor", "tests"):
            continue
        path = source_of(node.module)
        if path is None:
            yield from ([] if (ROOT.joinpath(*node.module.split("."))).is_dir() else [node.module])
            continue
        yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name not in names_in(path))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_is_there(path: Path) -> None:
    assert list(missing(path.read_text(encoding="utf-8"))) == []


def test_twin_a_name_that_is_gone_is_noticed() -> None:
    text = "from benchmarks.cifar10_runs import recipe, search\nfrom compressor.nothing import x\nimport torch\n"
    assert list(missing(text)) == ["benchmarks.cifar10_runs.search", "compressor.nothing"]
