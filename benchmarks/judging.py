"""Judges of mutants: processes that have imported everything and are forked once for each change.

A judge imports torch, the project and the test files once, and learns which test enters which function. Then one fork
for each mutant exchanges the code of the changed function where it stands in memory, and runs the tests that enter it,
quickest first, to the first that fails. What no test notices so is asked again the slow way, by all tests, imported
anew from the written file: that is also the way of changes outside of functions. It never knows how mutants are made.
"""

from __future__ import annotations

import ast
import builtins
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

MEMORY_BYTES = 12 * 2**30
"""Address space of one judge: a change that asks for more is noticed, not this machine's end."""

Place = tuple[str, int]
"""A function: its name and the line where it begins, decorators included."""

Told = Callable[[int, str | None], None]
"""Takes a change's number, and the test that notices it."""

BY_A_LIMIT = "a limit"
"""What noticed a change with which the tests do not end, take all memory, or crash."""

_ENTERED = "_mutants_entered"
_MESSAGES = os.dup(2)


@dataclass(frozen=True)
class Change:
    """A module's text with one change in it, and the offset where that begins."""

    text: str
    start: int


@dataclass(frozen=True)
class Limits:
    """Processor time and time of the clock for one run of tests; what takes longer is noticed."""

    cpu_s: int
    clock_s: int

    @classmethod
    def of(cls, usual_s: float) -> Limits:
        return cls(int(20 + 10 * usual_s), int(300 + 30 * usual_s))


def in_child(work: Callable[[], Any], limits: Limits) -> Any:
    """What a forked process answers, as JSON; None if it was ended by a limit or a signal."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 5))
            with os.fdopen(writer, "w") as pipe:
                json.dump(work(), pipe)
        except BaseException as error:
            os.write(_MESSAGES, f"{type(error).__name__}: {error}\n".encode())
            os._exit(70)
        os._exit(0)
    os.close(writer)
    said, end = b"", time.monotonic() + limits.clock_s
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, 1 << 16)
        said += part
        if not part:
            break
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 70:
        raise SystemExit("a judge ended with an error of its own, which stands above")
    return json.loads(said) if code == 0 and said else None


def warmed() -> None:
    """Imports what all judges need; one thread, so that a fork has all there is."""
    import numpy  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    torch.set_num_threads(1)
    torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))


@dataclass(frozen=True)
class Judge:
    """The tests of one module in a copy of the project."""

    folder: Path
    module: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.folder / "compressor" / f"{self.module}.py"

    @property
    def _log(self) -> Path:
        return self.folder.parent / "tests.log"

    def notice(
        self, changes: Sequence[Change], told: Told, *, quick: bool = False, excused: Collection[int] = ()
    ) -> list[int]:
        """Tells for each change, by its number, which test notices it; None for one that lives.

        Gives those that were not noticed and, where it has to be `quick`, not asked again. The `excused`, which compute
        the same, are not asked again either.

        Raises:  SystemExit if the tests fail without any change.
        """
        text = self.path.read_text(encoding="utf-8")
        first = _Quick(self.path, text, changes, told)
        answer = in_child(lambda: self._pytest(first), Limits(10**6, 10**6))
        if answer is None or "fault" in answer:
            said = (answer or {}).get("fault") or self._log.read_text(encoding="utf-8", errors="replace")[-4000:]
            raise SystemExit(f"{self.module}: its tests fail as it is\n{said}")
        if quick:
            return answer["open"]
        limits = Limits.of(sum(answer["times"].values()))
        for number in answer["open"]:
            if number in excused:
                told(number, None)
                continue
            self.path.write_text(changes[number].text, encoding="utf-8")
            # One second apart: Python takes a module that was compiled for one of the same second and length.
            os.utime(self.path, (number + 10**9, number + 10**9))
            whole = _Whole(answer["times"])
            answered = in_child(lambda whole=whole: self._pytest(whole), limits)
            told(number, BY_A_LIMIT if answered is None else answered["noticed"])
        self.path.write_text(text, encoding="utf-8")
        return []

    def _pytest(self, plugin: _Quick | _Whole) -> Any:
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        os.environ |= {"PYTHONPATH": str(self.folder), "HYPOTHESIS_PROFILE": "mutants", "OMP_NUM_THREADS": "1"}
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "compressor")]:
            del sys.modules[name]
        import pytest

        paths = [f"tests/{test}" for test in self.tests]
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={self.folder.parent / 'tmp'}"]
        code = pytest.main([*options, *paths], plugins=[plugin])
        return plugin.answer(int(code))


class _Run:
    """What both ways share: the first test that fails."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self.why = ""
        self.running = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed, self.why = report.nodeid, str(report.longrepr)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed, self.why = f"{report.nodeid} (when imported)", str(report.longrepr)

    def run(self, items: Sequence[Any]) -> Iterator[Any]:
        """Runs tests one after the other, to the first that fails; gives each when it is through."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            self.running = item.nodeid
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            yield item
            if self.failed is not None:
                return


class _Whole(_Run):
    """All tests of a module that stands in its file, quickest first."""

    def __init__(self, times: Mapping[str, float]) -> None:
        super().__init__()
        self.times = times

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = _quickest_first(items, self.times)

    def answer(self, code: int) -> dict[str, Any]:
        if code not in (0, 1, 2):
            raise SystemExit(f"pytest ended with {code}")
        return {"noticed": self.failed or (None if code == 0 else "the end of the run")}


class _Quick(_Run):
    """Instead of pytest's loop: the tests once as they are, then once for each change, in forks."""

    def __init__(self, path: Path, text: str, changes: Sequence[Change], told: Told) -> None:
        super().__init__()
        self.path, self.text, self.changes, self.told = path, text, changes, told
        self.answered: dict[str, Any] = {}

    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            self.answered = {"fault": self.why}
            return True
        functions = living(self.path)
        items = list(session.items)
        usual = in_child(lambda: self._usual(items, functions), Limits(3600, 7200))
        if usual is None or "fault" in usual:
            self.answered = usual or {"fault": "they were ended by a limit"}
            return True
        times, entered = usual["times"], {name: {tuple(x) for x in found} for name, found in usual["entered"].items()}
        items = _quickest_first(items, times)
        still_open = []
        for number, change in enumerate(self.changes):
            place = function_at(self.text, change.start)
            asked = [item for item in items if place in entered[item.nodeid]]
            noticed = self._noticed(change.text, asked, functions, times) if asked else None
            if noticed is None:
                still_open.append(number)
            else:
                self.told(number, noticed)
        self.answered = {"times": times, "open": still_open}
        return True

    def _usual(self, items: Sequence[Any], functions: Mapping[Place, list[FunctionType]]) -> dict[str, Any]:
        """Without a change: how long each test takes, and which functions it enters."""
        seen: set[Place] = set()
        exchange(functions, codes(watched(self.text, seen), self.path))
        times: dict[str, float] = {}
        entered: dict[str, list[Place]] = {}
        begun = time.process_time()
        for item in self.run(items):
            now = time.process_time()
            times[item.nodeid], begun = now - begun, now
            entered[item.nodeid] = sorted(seen)
            seen.clear()
        return {"fault": self.why} if self.failed else {"times": times, "entered": entered}

    def _noticed(
        self, text: str, asked: Sequence[Any], functions: Mapping[Place, list[FunctionType]], times: Mapping[str, float]
    ) -> str | None:
        def work() -> str | None:
            if not exchange(functions, codes(ast.parse(text), self.path)):
                return None
            try:
                list(self.run(asked))
            except BaseException:  # a change may end the program itself
                return self.running
            return self.failed

        answer = in_child(lambda: {"by": work()}, Limits.of(sum(times[item.nodeid] for item in asked)))
        return BY_A_LIMIT if answer is None else answer["by"]

    def answer(self, code: int) -> dict[str, Any]:
        return self.answered or {"fault": self.why}


def _quickest_first(items: Sequence[Any], times: Mapping[str, float]) -> list[Any]:
    """File by file as asked for: what a file sets up for all its tests is set up once."""
    places = {path: place for place, path in enumerate(dict.fromkeys(item.path for item in items))}
    return sorted(items, key=lambda item: (places[item.path], times.get(item.nodeid, 0.0)))


def codes(tree: ast.Module, path: Path) -> dict[Place, list[CodeType]]:
    """The code of every function of a module, inner ones too."""
    found: dict[Place, list[CodeType]] = defaultdict(list)
    todo = [compile(tree, str(path), "exec", dont_inherit=True)]
    while todo:
        inner = [part for part in todo.pop().co_consts if isinstance(part, CodeType)]
        for part in inner:
            found[part.co_name, part.co_firstlineno].append(part)
        todo += inner
    return found


def living(path: Path) -> dict[Place, list[FunctionType]]:
    """Every function of a module that exists, decorated, bound or shut in a table."""
    found: dict[Place, list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename == str(path):
            found[thing.__code__.co_name, thing.__code__.co_firstlineno].append(thing)
    return found


def exchange(functions: Mapping[Place, Sequence[FunctionType]], new: Mapping[Place, Sequence[CodeType]]) -> bool:
    """Gives living functions their new code; False if none differs, or one cannot be told from its neighbours."""
    changed = False
    for place, old in functions.items():
        given = new.get(place, ())
        if len(given) == 1 and given[0] != old[0].__code__:
            if given[0].co_freevars != old[0].__code__.co_freevars:
                return False
            for function in old:
                function.__code__ = given[0]
            changed = True
    return changed


def function_at(text: str, start: int) -> Place | None:
    """The innermost function whose body holds that offset."""
    lines = text[:start].splitlines(keepends=True) or [""]
    at = (len(lines), len(lines[-1].encode())) if not lines[-1].endswith("\n") else (len(lines) + 1, 0)
    found = None
    for node in ast.walk(ast.parse(text)):  # outer ones come first
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end = (node.end_lineno or 0, node.end_col_offset or 0)
            if (node.body[0].lineno, node.body[0].col_offset) <= at < end:
                found = _place(node)
    return found


def watched(text: str, seen: set[Place]) -> ast.Module:
    """The module, with every function noting in `seen` that it was entered."""
    setattr(builtins, _ENTERED, seen.add)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            note = ast.parse(f"{_ENTERED}({_place(node)!r})").body[0]
            first = node.body[0]
            has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            for part in ast.walk(note):
                ast.copy_location(part, first)
            node.body.insert(1 if has_docstring else 0, note)
    return tree


def _place(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Place:
    return node.name, min((part.lineno for part in node.decorator_list), default=node.lineno)
