"""Mutation testing: changes one operator, comparison, constant or condition at a time and asks whether a test notices.

    python -m benchmarks.mutants --sample 20 compaction/verify exporting/verify

Mutants are written in a temporary copy of the project, never in the tree. The sample is drawn by --seed, results go to
--results line by line, and a mutant that stands there is not judged again: stop it and go on whenever you like. Each
module is judged by the test file that mirrors it, and by those in `JUDGES`. What survives is told with its line; what
has been looked at and computes the same is in `tests/mutants.md`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.test_mirrors import TOGETHER, modules

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "compressor"
COPIED = ("compressor", "tests", "docs", "benchmarks", "pyproject.toml", "README.md", "Makefile")
CPU_S = 600
"""Processor time for the judges of one mutant; one that makes them loop is noticed too."""

JUDGES: Mapping[str, tuple[str, ...]] = {
    "compaction/verify": ("program/test_runs.py",),
    "program/agreement": ("compaction/test_verify.py",),
    "sparsity/unweighted": ("pruning/test_patterns.py",),
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


def mutants(module: str, text: str) -> Iterator[Mutant]:
    """Every change of the module that is still Python, in the order of its text."""
    tree = ast.parse(text)
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    unseen = _annotations(tree)

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


def _annotations(tree: ast.AST) -> set[ast.AST]:
    """What never runs or says nothing: annotations, texts, and what is in them."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
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
        yield begin, end, f"({ast.unparse(node.body)})"
        yield begin, end, f"({ast.unparse(node.orelse)})"
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
            shutil.copy(source, folder / name)


def passes(folder: Path, tests: Sequence[str]) -> bool:
    """Whether all tests pass in the copy, run in a child that starts from what this process has imported."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = 99
        try:
            import pytest

            import compressor

            assert Path(compressor.__file__).is_relative_to(folder), "another copy is being judged"
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)])
        finally:
            os._exit(int(code))
    status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1, 2, -signal.SIGXCPU, -signal.SIGKILL):
        raise SystemExit(f"pytest ended with {code}: the judges {', '.join(tests)} cannot be run")
    return code == 0


def judge(wanted: Sequence[Mutant], results: Path) -> None:
    """Judges mutants that have no result yet, and notes each as it is done."""
    keys = {mutant: key(mutant) for mutant in wanted}
    known = read(results)
    with tempfile.TemporaryDirectory(prefix="mutants") as name:
        folder = Path(name).resolve()
        copied(folder)
        for module in dict.fromkeys(mutant.module for mutant in wanted):
            todo = [mutant for mutant in wanted if mutant.module == module and keys[mutant] not in known]
            if todo and not passes(folder, judges(module)):
                raise SystemExit(f"{module}: its tests fail as it is")
            place = folder / "compressor" / f"{module}.py"
            text = place.read_text(encoding="utf-8")
            for mutant in todo:
                place.write_text(mutant.of(text), encoding="utf-8")
                killed = not passes(folder, judges(module))
                place.write_text(text, encoding="utf-8")
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": keys[mutant], "killed": killed, **asdict(mutant)}) + "\n")
                told = "killed  " if killed else "SURVIVED"
                print(f"{told} {module}.py:{mutant.line}  {mutant.old} -> {mutant.new}", flush=True)


def key(mutant: Mutant) -> str:
    """What a result belongs to: the change, and the text of its module and of its judges."""
    texts = [PACKAGE / f"{mutant.module}.py", *(ROOT / "tests" / test for test in judges(mutant.module))]
    content = b"".join(path.read_bytes() for path in texts)
    return hashlib.sha256(content + repr(mutant).encode()).hexdigest()[:24]


def read(results: Path) -> dict[str, bool]:
    """Results so far by key."""
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return {line["key"]: line["killed"] for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="`compaction/verify`; without one all")
    parser.add_argument("--sample", type=int, default=20, help="mutants of each module; 0 takes all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=ROOT / ".mutants.jsonl")
    options = parser.parse_args()
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
    import torch  # noqa: F401 (every child has it)

    wanted: list[Mutant] = []
    for module in options.modules or sorted(modules()):
        found = list(mutants(module, (PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
        chance = random.Random(f"{options.seed} {module}")
        drawn = chance.sample(found, min(options.sample, len(found))) if options.sample else found
        wanted += sorted(drawn, key=lambda mutant: mutant.start)
    judge(wanted, options.results)
    known = read(options.results)
    killed = Counter(mutant.module.split("/")[0] for mutant in wanted if known[key(mutant)])
    for package, n in sorted(Counter(mutant.module.split("/")[0] for mutant in wanted).items()):
        print(f"{package}: {killed[package]} of {n} killed ({killed[package] / n:.0%})")


if __name__ == "__main__":
    main()
