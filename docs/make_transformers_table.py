"""The table of transformers.md, from what benchmarks/transformer_families.py found; it must never run a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.generated import Part, table

FOUND = Path(__file__).parents[1] / "benchmarks" / "data" / "transformers.jsonl"
HEADS = (
    "architecture",
    "opens alone with",
    "channel",
    "head",
    "layer",
    "whole layers",
    "expert",
    "exact",
    "ONNX",
    "lengths",
    "back to a directory: entries",
)


def make() -> str:
    """A row for each network, and below it every gap with its reason."""
    found = [json.loads(line) for line in FOUND.read_text(encoding="utf-8").splitlines()]
    gaps = [f"- {one['name']}, {column}: {reason}" for one in found for column, reason in _gaps(one)]
    told = f"{len(found)} architectures; “{NO}” has its reason below the table."
    return "\n".join([told, "", table(HEADS, map(_row, found)), "", *gaps])


NO = "no"
_CUT = 160
"""Where the scan cuts reasons off."""
_NO_ROUTER = "no router chooses among experts"
"""What is said of a network that is no mixture."""


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    if one.get("opens") is not True:
        return (f"{one['name']} (`{one['class']}`)", NO, *[""] * (len(HEADS) - 2))
    exact, rescale = (one["entries"][how] for how in ("exact", "rescale"))
    more = [entry for entry in rescale if entry not in exact]
    entries = ", ".join(f"`{entry}`" for entry in exact) if one["directory"] is True else NO
    told = ", ".join(f"`{entry}`" for entry in more)
    return (
        f"{one['name']} (`{one['class']}`)",
        ", ".join(f"`{name}`" for name in one["inputs"]),
        _cell(one["channel"]),
        "yes" if one["head"] else "none found",
        _cell(one.get("layer")),
        _cell(one.get("whole_layers")),
        "none" if _NO_ROUTER in str(one.get("expert")) else _cell(one.get("expert")),
        _cell(one["exact"]),
        _cell(one["onnx"]) + ("" if one["batch"] else ", batch 1"),
        ", ".join(one["lengths"]) or "fixed",
        f"{entries}; by `rescale` also {told}" if more and exact else f"by `rescale` {told}" if more else entries,
    )


def _cell(value: Any) -> str:
    return "yes" if value is True else "–" if value is None else NO


def _gaps(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "fault" in one:
        yield "a fault of ours", one["fault"]
    for column in ("opens", "channel", "layer", "whole_layers", "expert", "exact", "onnx", "directory"):
        if isinstance(one.get(column), str) and _NO_ROUTER not in one[column]:
            yield column.replace("_", " "), one[column] + ("…" if len(one[column]) == _CUT else "")
    for note in one.get("notes", ()):
        if "fix" in note:
            yield "sizes", note.splitlines()[0][:200]


PART = Part("transformers.md", "families", make)
