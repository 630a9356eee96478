"""The house: who may import whom, how long things may be, what is public.

Everything is read from the source text, imports inside functions and under TYPE_CHECKING too: a layer
that knows another's types knows the layer.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import compressor

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "compressor"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

ROWS: Mapping[str, int] = {
    "errors": 0, "units": 0, "progress": 0, "atomic": 0, "reference": 0, "asking": 0, "printable": 0, "places": 0,
    "sealed": 0, "regular": 0, "schema": 0, "narrowing": 0, "typed_torch": 0, "nearest": 0, "users_code": 0,
    "architectures": 0, "data_reference": 0, "input_text": 0, "model_file": 0, "terminal": 0, "launched": 0,
    "program": 1, "data": 1, "models": 1,
    "axes": 2, "cost": 2, "formats": 2,
    "sparsity": 3, "training": 3,
    "analysis": 4, "pruning": 4, "compaction": 4, "exporting": 4, "timing": 4,
    "report": 5, "integrations": 5,
    "cli": 6,
    "__init__": 7, "__main__": 7,
}  # fmt: skip
"""Row of every package and top-level module; the public API stands above them all."""

Sources = Mapping[str, str]


def sources() -> dict[str, str]:
    """Text of every module by dotted name; a package's own is `compressor.axes.__init__`."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in sorted(SOURCE.rglob("*.py"))
    }


def part_of(module: str) -> str:
    """`compressor.axes.walk` -> `axes`; `compressor` itself and its public names -> `__init__`."""
    parts = module.split(".")
    return "__init__" if len(parts) == 1 or (len(parts) == 2 and parts[1][:1].isupper()) else parts[1]


def imports(name: str, text: str, *, top_level: bool = False) -> Iterator[str]:
    """Modules and names of this project that a module imports; `top_level` leaves out what runs later."""
    tree = ast.parse(text)
    nodes = _run_at_import(tree.body) if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "compressor")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: -node.level]
                base = ".".join([*above, *([base] if base else [])])
            if base.split(".")[0] == "compressor":
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _run_at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from _run_at_import(getattr(statement, field, []))


def violations(texts: Sources) -> list[str]:
    """Every import that goes up or sideways, and every part that has no row."""
    found = [f"{part} has no row" for part in sorted({part_of(name) for name in texts}) if part not in ROWS]
    for name, text in texts.items():
        own = part_of(name)
        for target in imports(name, text):
            other = part_of(target)
            if own not in ROWS or other == own or target == "compressor.__version__":
                continue
            if other not in ROWS:
                found.append(f"{name} imports {target}: {other} has no row")
            elif ROWS[other] > ROWS[own]:
                found.append(f"{name} imports {target}: up, from row {ROWS[own]} to {ROWS[other]}")
            elif ROWS[other] == ROWS[own] > 0:
                found.append(f"{name} imports {target}: sideways in row {ROWS[own]}")
    return found


def cycles(texts: Sources, *, when_loaded: bool = True) -> list[str]:
    """Rings of modules that import each other, from their first module on; without `when_loaded` those too that are
    imported later or for types only."""
    modules = set(texts)

    def resolve(target: str) -> str | None:
        parents = (target, target.rpartition(".")[0])
        return next((m for p in parents for m in (p, f"{p}.__init__") if m in modules), None)

    edges = {
        name: sorted({m for t in imports(name, text, top_level=when_loaded) if (m := resolve(t)) and m != name})
        for name, text in texts.items()
    }
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
            return
        if name not in done:
            for other in edges[name]:
                visit(other, [*path, name])
            done.add(name)

    for name in edges:
        visit(name, [])
    return found


def too_long(texts: Sources) -> list[str]:
    """Files and functions beyond the limits."""
    found = [f"{name}: {n} lines" for name, text in texts.items() if (n := text.count("\n")) > MAX_FILE_LINES]
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                n = (node.end_lineno or node.lineno) - node.lineno + 1
                if n > MAX_FUNCTION_LINES:
                    found.append(f"{name}:{node.lineno} {node.name}: {n} lines")
    return found


def test_imports_go_down_only() -> None:
    assert violations(sources()) == []


@pytest.mark.parametrize(
    ("module", "text", "told"),
    [
        ("compressor.program.graph", "from compressor.axes import walk", "up, from row 1 to 2"),
        ("compressor.axes.walk", "def f():\n    import compressor.cost.count", "sideways in row 2"),
        ("compressor.data.npz", "if TYPE_CHECKING:\n    from ..models import build", "sideways in row 1"),
        ("compressor.training.loop", "from compressor import Program", "up, from row 3 to 7"),
        ("compressor.errors", "from compressor.cli.main import run", "up, from row 0 to 6"),
        ("compressor.helpers", "", "helpers has no row"),
        ("compressor.axes.walk", "from compressor.misc import x", "misc has no row"),
    ],
)
def test_a_wrong_import_is_found(module: str, text: str, told: str) -> None:
    assert any(told in violation for violation in violations({module: text}))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("compressor.axes.walk", "from compressor.axes.labels import x\nfrom .ids import y\nimport torch"),
        ("compressor.units", "from compressor.errors import UsageError"),
        ("compressor.exporting.metadata", "from compressor import __version__"),
        ("compressor.cli.main", "from compressor.report import console\nimport compressorium.axes"),
    ],
)
def test_a_right_import_is_let_through(module: str, text: str) -> None:
    assert violations({module: text}) == []


def test_no_module_needs_itself_to_load() -> None:
    assert cycles(sources()) == []


def test_no_two_modules_know_each_other() -> None:
    """A module that knows another's types knows the module; the public API stands above all that it names."""
    texts = {name: text for name, text in sources().items() if name != "compressor.__init__"}
    assert cycles(texts, when_loaded=False) == []


def test_a_cycle_is_found() -> None:
    ring = {
        "compressor.axes.__init__": "from compressor.axes.walk import walk",
        "compressor.axes.walk": "from compressor.axes.rules import rule",
        "compressor.axes.rules": "from compressor.axes import walk",
    }
    assert len(cycles(ring)) == 1
    later = {**ring, "compressor.axes.rules": "def f():\n    from compressor.axes import walk"}
    assert cycles(later) == []
    assert len(cycles(later, when_loaded=False)) == 1


def test_files_and_functions_stay_short() -> None:
    assert too_long(sources()) == []


def test_what_is_too_long_is_found() -> None:
    body = "    x = 1\n" * MAX_FUNCTION_LINES
    assert too_long({"m": f"def f():\n{body}"}) == [f"m:1 f: {MAX_FUNCTION_LINES + 1} lines"]
    assert too_long({"m": "\n" * (MAX_FILE_LINES + 1)}) == [f"m: {MAX_FILE_LINES + 1} lines"]


def test_every_module_says_what_it_holds_and_what_not() -> None:
    without = [
        name
        for name, text in sources().items()
        if "must never" not in " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    ]
    assert without == []


def test_no_path_of_a_developers_machine_is_in_the_source() -> None:
    found = [
        name
        for name, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith(("/work/", "/tmp/", "/home/", "/root/"))
    ]
    assert found == []


def test_all_is_the_real_surface() -> None:
    for name in compressor.__all__:
        assert getattr(compressor, name) is not None
    assert set(compressor.__all__) <= set(dir(compressor))
    public = {name for name in vars(compressor) if not name.startswith("_")}
    modules = {part for part in ROWS if not part.startswith("_")}
    assert public - modules - set(compressor.__all__) <= {"annotations", "importlib", "os", "TYPE_CHECKING", "Any"}


WORKING_STATE = {
    "axes.ids.IdSpace", "axes.table.Context", "compaction.find_constants._State", "compaction.folding.Additions",
    "exporting.source_classes.Body", "exporting.source_classes.Part", "exporting.source_regions.Regions",
    "formats.onnx_import.budget.Budget", "formats.onnx_import.compare.Comparison", "formats.onnx_import.read.OnnxModel",
    "program.family.Known", "timing.cautions.Reasons",
}  # fmt: skip
"""What is filled while something is made, and then kept by nobody: all else that is a dataclass is a value."""


def mutable(texts: Sources) -> set[str]:
    """Dataclasses that are not frozen."""
    found = set()
    for name, text in texts.items():
        for node in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)):
            said = [ast.unparse(part) for part in node.decorator_list]
            if any(part.startswith("dataclass") and "frozen=True" not in part for part in said):
                found.add(f"{name.removeprefix('compressor.')}.{node.name}")
    return found


def test_state_lives_in_values() -> None:
    assert mutable(sources()) == WORKING_STATE
    assert mutable(
        {"compressor.a": "@dataclass(frozen=False)\nclass A: ...\n@dataclass(frozen=True)\nclass B: ..."}
    ) == {"a.A"}


def test_every_public_name_lives_where_the_table_says() -> None:
    for name, home in compressor._HOME.items():
        module, _, other = home.partition(":")
        assert getattr(importlib.import_module(module), other or name) is getattr(compressor, name)
    assert set(compressor._HOME) == set(compressor.__all__) - {"__version__"}


def test_python_has_what_the_command_line_has() -> None:
    verbs = {"analyze", "prune", "retrain", "compact", "export", "bench", "scan_sensitivity", "explain"}
    asked = {"PruneSettings", "Admm", "Recovery", "Recipe", "ScanSettings", "Sensitivity", "InputSpec", "OperatorClock"}
    assert verbs | asked <= set(compressor.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'compres'"):
        compressor.compres  # noqa: B018


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, compressor; print('torch' in sys.modules, compressor.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", compressor.__version__]
