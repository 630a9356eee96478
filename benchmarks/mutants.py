"""Mutation testing: changes one operator, comparison, constant or condition at a time and asks whether a test notices.

    python -m benchmarks.mutants --sample 20 compaction/verify exporting

Mutants live in memory and in a temporary copy of the project, never in the tree. The sample is drawn by --seed, results
go to --results line by line, and a mutant that stands there is not judged again: stop it and go on whenever you like.
Each module is judged by the test file that mirrors it, and by those in `JUDGES`. What survives is told with its line;
what has been looked at and computes the same is in `tests/mutants.md`.

cosmic-ray begins a new Python for each mutant, which here imports and warms torch for longer than most tests run;
mutmut forks as we do, but changes nothing outside of functions, and half of this project is tables and dataclasses.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.judging import Change, Judge, warmed
from tests.test_mirrors import TOGETHER, modules

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "compressor"
COPIED = (
    "compressor", "tests", "docs", "benchmarks", "examples", "sample_models", "pyproject.toml", "README.md", "Makefile",
)  # fmt: skip
EXPLAINED = ROOT / "tests" / "mutants.md"

JUDGES: Mapping[str, tuple[str, ...]] = {
    **{
        f"axes/{name}": ("axes/test_hard_cases.py",)
        for name in ("meeting", "rules_contract", "rules_distance", "rules_move", "rules_pointwise", "rules_reduce")
    },
    "axes/walk": ("axes/test_hard_cases.py",),
    "axes/table": ("axes/test_rules_norm.py",),
    "axes/units": ("program/test_choices.py",),
    "axes/rules_norm": ("axes/test_through_norm.py", "axes/test_rules_pointwise.py", "axes/test_rules_reduce.py"),
    "compaction/compact": ("compaction/test_rounding.py",),
    "compaction/removal": ("compaction/test_compact.py", "pruning/test_layer_pattern.py"),
    "compaction/norms": ("axes/test_through_norm.py", "compaction/test_plain_norms.py", "compaction/test_oracle.py"),
    "compaction/verify": ("program/test_runs.py",),
    "program/agreement": ("compaction/test_verify.py",),
    "sparsity/select": ("sparsity/test_unweighted.py", "sparsity/test_select_shape.py"),
    "sparsity/unweighted": ("pruning/test_patterns.py",),
    "pruning/reporting": ("pruning/test_methods.py",),
    **{
        f"formats/onnx_import/{name}": (
            "formats/onnx_import/test_semantics.py",
            "formats/onnx_import/test_attributes.py",
        )
        for name in ("contract", "move", "norm", "pointwise", "pool", "reduce", "resize", "shape", "window")
    },
    "formats/onnx_import/opening": ("formats/onnx_import/test_batches.py", "formats/onnx_import/test_graphs.py"),
    "training/devices": ("training/test_denormals.py",),
    "formats/archive": ("formats/test_stand_ins.py",),
    "formats/contracts": ("bad/test_hostile_calls.py",),
    "formats/running": ("formats/test_budget.py",),
}
"""Module -> test files that judge it too, in the order in which they are asked. The first is always the one where its
tests stand, by `tests/test_mirrors.py`."""

_COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*", ast.Pow: "*",
    ast.BitOr: "&", ast.BitAnd: "|",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: the characters `start` to `end` of a module's text become `new`."""

    module: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def of(self, text: str) -> str:
        return text[: self.start] + self.new + text[self.end :]

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line}  {self.old} -> {self.new}"


def mutants(module: str, text: str) -> Iterator[Mutant]:
    """Every change of the module that is still Python, in the order of its text."""
    tree = ast.parse(text)
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    unseen = _unseen(tree)

    def place(line: int, column: int) -> int:
        return starts[line - 1] + len(text[starts[line - 1] : starts[line]].encode()[:column].decode())

    for node in ast.walk(tree):
        if node in unseen or not isinstance(node, ast.expr):
            continue
        begin, end = place(node.lineno, node.col_offset), place(node.end_lineno or 0, node.end_col_offset or 0)
        for start, stop, new in _changes(node, text, begin, end, place):
            found = Mutant(module, node.lineno, start, stop, text[start:stop], new)
            if found.old != new and _is_python(found.of(text)):
                yield found


def _unseen(tree: ast.AST) -> set[ast.AST]:
    """What never runs or says nothing: annotations, texts, and what is in them; and what is asserted.

    `strict` of a zip and `frozen` of a dataclass say what holds anyhow; that all values are frozen is a test's own.
    """
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        parts += [node.value] if isinstance(node, ast.keyword) and node.arg in ("strict", "frozen") else []
        for part in parts:
            found |= set(ast.walk(part)) if isinstance(part, ast.AST) else set()
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            found |= set(ast.walk(node))
    return found


def _changes(node: ast.expr, text: str, begin: int, end: int, place: object) -> Iterator[tuple[int, int, str]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield _between(node.left, node.comparators[0], text, place, _COMPARISONS[type(node.ops[0])])
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield _between(node.left, node.right, text, place, _ARITHMETIC[type(node.op)])
    elif isinstance(node, ast.BoolOp):
        other = "or" if isinstance(node.op, ast.And) else "and"
        yield _between(node.values[0], node.values[1], text, place, other)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield begin, end, f"({text[begin:end].removeprefix('not ').removeprefix('-')})"
    elif isinstance(node, ast.IfExp):
        below = "\n" * text[begin:end].count("\n")  # later functions stay where they are
        yield begin, end, f"({ast.unparse(node.body)}{below})"
        yield begin, end, f"({ast.unparse(node.orelse)}{below})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield begin, end, str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield begin, end, repr(node.value + 1 if isinstance(node.value, int) else node.value * 3)


def _between(left: ast.expr, right: ast.expr, text: str, place: object, new: str) -> tuple[int, int, str]:
    """The characters between two operands, brackets left where they are, with the operator exchanged."""
    assert callable(place)
    start, stop = place(left.end_lineno, left.end_col_offset), place(right.lineno, right.col_offset)
    gap = text[start:stop]
    core = gap.strip(" \n()")
    at = gap.index(core) if core else 0
    return start + at, start + at + len(core), new


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def judges(module: str) -> tuple[str, ...]:
    """Test files that judge a module, the one where its tests stand first.

    Raises:  SystemExit for a module that has none.
    """
    folder, _, name = module.rpartition("/")
    mirror = next((file for file, names in TOGETHER.items() if module in names.split()), f"{folder}/test_{name}.py")
    found = tuple(path for path in (mirror, *JUDGES.get(module, ())) if (ROOT / "tests" / path).exists())
    if not found:
        raise SystemExit(f"{module}: no test file judges it")
    return found


def copied(folder: Path) -> None:
    """The project in another folder."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)


def judge(wanted: Sequence[Mutant], results: Path, *, quick: bool = False) -> None:
    """Judges mutants that have no result yet, and notes each as it is done; `quick` notes only what is noticed."""
    known, same = Known(results), set(explained(EXPLAINED.read_text(encoding="utf-8")))
    for module in dict.fromkeys(mutant.module for mutant in wanted):
        todo = [mutant for mutant in wanted if mutant.module == module and known.of(mutant) is None]
        if all(described(mutant) in same for mutant in todo):
            continue
        text = source(module)
        with tempfile.TemporaryDirectory(prefix="mutants") as name:
            folder = Path(name).resolve() / "project"
            copied(folder)
            changes = [Change(mutant.of(text), mutant.start) for mutant in todo]
            told = partial(_told, todo, known, os.dup(1))
            excused = [number for number, mutant in enumerate(todo) if described(mutant) in same]
            left = Judge(folder, module, judges(module)).notice(changes, told, quick=quick, excused=excused)
            print("".join(f"may live  {todo[number]}\n" for number in left), end="", flush=True)


def _told(todo: Sequence[Mutant], known: Known, out: int, number: int, noticed: str | None) -> None:
    mutant = todo[number]
    known.add(mutant, noticed)
    end = f"killed    {mutant}  by {noticed}" if noticed else f"SURVIVED  {mutant}"
    os.write(out, f"{end}\n".encode())


def source(module: str) -> str:
    return (PACKAGE / f"{module}.py").read_text(encoding="utf-8")


class Known:
    """Results line by line in a file.

    What was noticed holds as long as its module and the test that noticed it are as they were; what lived, as long as
    its module and all of its judges are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self._lines = {line["key"]: line for line in map(json.loads, text.splitlines())}

    def of(self, mutant: Mutant) -> dict[str, Any] | None:
        line = self._lines.get(_key(mutant))
        return line if line and line["judged"] == _judged(mutant, line["noticed"]) else None

    def add(self, mutant: Mutant, noticed: str | None) -> None:
        line = {"key": _key(mutant), "judged": _judged(mutant, noticed), "noticed": noticed, **asdict(mutant)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _key(mutant: Mutant) -> str:
    return digest(source(mutant.module), repr(mutant))


def _judged(mutant: Mutant, noticed: str | None) -> str:
    if noticed is not None and "::" in noticed:
        return digest(function_text(*noticed.split("[")[0].split("::")[:2]))
    return digest(*(text_of_test(test) for test in judges(mutant.module)))


@cache
def text_of_test(name: str) -> str:
    return (ROOT / "tests" / name).read_text(encoding="utf-8")


@cache
def function_text(file: str, name: str) -> str:
    """The text of a test; empty if it is gone."""
    place = ROOT / file
    text = place.read_text(encoding="utf-8") if place.exists() else ""
    found = [node for node in ast.parse(text).body if getattr(node, "name", None) == name]
    return ast.get_source_segment(text, found[0]) or "" if found else ""


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


def explained(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Module, line, old and new text of the changes that compute the same, as `tests/mutants.md` tells them."""
    module = ""
    for line in text.replace("\n  ", " ").splitlines():  # an item may go on below, further in
        if found := re.fullmatch(r"### `(.+)`", line):
            module = found[1]
        elif found := re.match(r"- `(.+?)` → `(.+?)` in `(.+?)`: ", line):
            yield module, found[3], found[1], found[2]


def described(mutant: Mutant) -> tuple[str, str, str, str]:
    """A change as `tests/mutants.md` tells it: by its line's text, which stays when others move."""
    line = source(mutant.module).splitlines()[mutant.line - 1].strip()
    return mutant.module, line, *(" ".join(part.split()) for part in (mutant.old, mutant.new))


def chosen(asked: Sequence[str], n: int, sample: int, seed: int) -> list[str]:
    """Modules by name or package; of each package so many drawn of those that have a whole sample, all for 0."""
    found = [m for m in sorted(modules()) if any(m == name or m.startswith(name and f"{name}/") for name in asked)]
    if not n:
        return found
    packages: dict[str, list[str]] = {}
    for module in found:
        if next(islice(mutants(module, source(module)), max(sample - 1, 0), None), None):
            packages.setdefault(module.split("/")[0], []).append(module)
    some = [random.Random(f"{seed} {p}").sample(of, min(n, len(of))) for p, of in packages.items()]
    return sorted(module for part in some for module in part)


def drawn(module: str, n: int, seed: int) -> list[Mutant]:
    """A sample of a module's changes, in the order of its text; all for 0."""
    found = list(mutants(module, source(module)))
    some = random.Random(f"{seed} {module}").sample(found, min(n, len(found))) if n else found
    return sorted(some, key=lambda mutant: mutant.start)


def summary(wanted: Sequence[Mutant], known: Known, same: Collection[tuple[str, str, str, str]]) -> Iterator[str]:
    """The score of each package, and what lives without an explanation."""
    n, noticed, excused = Counter[str](), Counter[str](), Counter[str]()
    living: list[Mutant] = []
    for mutant in wanted:
        package, line = mutant.module.split("/")[0], known.of(mutant)
        n[package] += 1
        noticed[package] += line is not None and line["noticed"] is not None
        if line is None or line["noticed"] is None:
            excused[package] += described(mutant) in same
            living += [] if described(mutant) in same or line is None else [mutant]
    for package in (*sorted(n), None):
        of = [sum(part.values()) if package is None else part[package] for part in (n, noticed, excused)]
        asked = of[0] - of[2]
        share = f" ({of[1] / asked:.1%})" if asked else ""
        yield f"{package or 'all'}: {of[1]} of {asked} noticed{share}, {of[2]} more compute the same"
    yield from (f"lives: {mutant}" for mutant in living)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "modules", nargs="*", help="`compaction/verify`, or `compaction` for all of it; without any all"
    )
    parser.add_argument("--sample", type=int, default=20, help="mutants of each module; 0 takes all")
    parser.add_argument("--modules", type=int, default=0, dest="n_modules", help="modules of each package; 0 takes all")
    parser.add_argument("--quick", action="store_true", help="tell what may live, and do not ask a second time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=ROOT / ".mutants.jsonl")
    options = parser.parse_args()
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
    names = chosen(options.modules or [""], options.n_modules, options.sample, options.seed)
    wanted = [mutant for module in names for mutant in drawn(module, options.sample, options.seed)]
    warmed()
    judge(wanted, options.results, quick=options.quick)
    same = set(explained(EXPLAINED.read_text(encoding="utf-8")))
    print("\n".join(summary(wanted, Known(options.results), same)))


if __name__ == "__main__":
    main()
