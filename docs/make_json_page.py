"""The tables of json.md, from the result dataclasses and golden files."""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from compressor.analysis.findings import Analysis, Explanation
from compressor.asking.gates import Verdict
from compressor.asking.pattern import Pattern
from compressor.compaction.removed import CompactReport
from compressor.exporting.exported import Check, ExportReport, Verification
from compressor.pruning.pruned import PruneReport, RetrainReport
from compressor.timing.measured import BenchReport, CutLatency
from docs.generated import HERE, Part, table

GOLDEN = HERE.parent / "tests" / "cli" / "golden"

HEADS: Mapping[str, str] = {
    "schema": "text: `compress.COMMAND/VERSION`",
    "model": "text: MODEL as it was given; `standard input` for a pipe",
    "sha256": "text or null: SHA-256 of MODEL's bytes",
    "output": "text or null: where the model was written, `-` for standard output; null for a dry run and where a "
    "requirement was not met",
    "size_bytes": "int or null: of the written file",
    "dry_run": "bool",
    "latency": "[CutLatency](#cutlatency) or null: from the model before to the compacted one; null with "
    "`--no-latency`, and where `prune` cuts more than whole units",
    "removed": "int: parameters that are gone",
    "requirements": "list of [Verdict](#verdict), one for each `--require`",
    "passed": "bool: every requirement was met",
    "explanation": "[Explanation](#explanation)",
}
"""Keys that the command line puts around a result."""

RESULTS: Mapping[str, type] = {
    "analyze": Analysis,
    "explain": Explanation,
    "prune": PruneReport,
    "retrain": RetrainReport,
    "compact": CompactReport,
    "export": ExportReport,
    "bench": BenchReport,
}
"""Golden file -> dataclass whose fields are its other keys."""


def page() -> str:
    """The generated part: every command's keys, then every dataclass."""
    parts = [_command(name) for name in RESULTS if name != "explain"]
    return "\n\n".join([*parts, *(_dataclass(kind) for kind in _all_dataclasses())])


def undocumented(command: str, body: Mapping[str, Any]) -> list[str]:
    """Top-level keys of a real answer that no table of the page explains."""
    known = {*HEADS, *_hints(RESULTS[command])}
    return [key for key in body if key not in known]


def _hints(kind: type) -> dict[str, Any]:
    """Keys of a result in JSON, with their types; what the worst check of an export says stands among its own."""
    hints = get_type_hints(kind)
    if kind is not ExportReport:
        return hints
    del hints["verification"]
    worst = {key: hint for key, hint in get_type_hints(Check).items() if key not in ("inputs", "batch")}
    found = {name: get_type_hints(getattr(Verification, name).fget)["return"] for name in ("batch_sizes",)}
    return {**hints, **worst, **found, **get_type_hints(Verification)}


def _command(name: str) -> str:
    body = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    hints = _hints(RESULTS[name])
    rows = ((f"`{key}`", HEADS[key] if key in HEADS else _type(hints[key])) for key in body)
    return f"### `compress {name} --json`\n\n{_doc(RESULTS[name])}\n\n{table(('Key', 'Value'), rows)}"


def _dataclass(kind: type) -> str:
    hints = get_type_hints(kind)
    rows = ((f"`{field.name}`", _type(hints[field.name])) for field in fields(kind))
    return f"### {kind.__name__}\n\n{_doc(kind)}\n\n{table(('Key', 'Value'), rows)}"


def _doc(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def _all_dataclasses() -> list[type]:
    """Everything that the results are made of, in the order of appearance; the results themselves are left out."""
    found: list[type] = [Explanation, Verdict, CutLatency]
    for result in RESULTS.values():
        for inner in _inner(result):
            if inner not in found and inner not in RESULTS.values():
                found.append(inner)
    return found


def _inner(kind: type) -> Iterator[type]:
    for hint in _hints(kind).values():
        for part in _parts(hint):
            if is_dataclass(part) and isinstance(part, type) and part is not Pattern:
                yield part
                yield from _inner(part)


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for argument in get_args(hint):
        yield from _parts(argument)


def _type(hint: Any) -> str:
    """A type hint in words of JSON."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, NewType):
        return f"{_type(hint.__supertype__)} ({hint.__name__})"
    if origin in (Union, UnionType):
        return " or ".join("null" if part is NoneType else _type(part) for part in arguments)
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_type, arguments))}]"
    if origin in (list, set, frozenset):
        return f"list of {_type(arguments[0])}"
    if origin is dict or (origin is not None and issubclass(origin, Mapping)):
        return f"object of {_type(arguments[1])} by {_type(arguments[0])}"
    if hint is Pattern:
        return "text"
    if is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(f"`{member.name.lower()}`" for member in hint)
    return {str: "text", float: "number", int: "whole number"}.get(hint, getattr(hint, "__name__", str(hint)))


PART = Part("json.md", "tables", page)
