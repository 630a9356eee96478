"""The table of operator families in operators.md: what each part of `compress` knows of them, and what it does not.

A cell without an entry has a reason in `GAPS`; a test holds that each has one, and that no reason has outlived its gap.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from compressor.axes.table import RULES
from compressor.compaction import find_constants, norms  # noqa: F401 (fills the tables of transfers and rewrites)
from compressor.compaction.constants import TRANSFERS
from compressor.compaction.readers import READS
from compressor.compaction.slicing import REWRITES
from compressor.cost.products import RULES as MAC_RULES
from compressor.formats.onnx_import.importers import IMPORTER_MODULES
from compressor.formats.onnx_import.table import IMPORTERS
from compressor.program import families as f
from docs.generated import Part, table

COLUMNS = ("Axis rule", "Constants", "Rewrite", "Reads", "MACs", "From ONNX")
_MOST_NAMES = 6


@dataclass(frozen=True)
class Gap:
    """Why families have nothing in a column."""

    column: str
    families: f.Family | f.Group
    reason: str


_UNNORMALISED = f.NO_OP | f.COPY_INTO | f.ZERO_INTO | f.FILL_INTO
_COUNTED_ONLY = f.ANY_CONVOLUTION | f.CONV_TBC | f.AFFINE_GRID
_OF_TWO = (
    f.OTHER_MATMUL | f.ADDMV | f.ADDBMM | f.TENSORDOT | f.BILINEAR | f.DISTANCE | f.SIMILARITY | f.OUTER
)  # fmt: skip
_PLACED = f.SCATTER | f.UNPOOL | f.SAMPLE
_RECURRENT = f.RECURRENT | f.RECURRENT_CELL
_UNRULED = _COUNTED_ONLY | _UNNORMALISED

_WITHOUT_SIZES = (
    f.LINEAR | f.PRODUCTS | f.ADDED_PRODUCTS | f.EINSUM | f.ATTENTION | f.EMBEDDING | f.CHANNEL_NORMS | f.WEIGHT_NORM
    | f.FLATTEN | f.UNSQUEEZE | f.VIEW_AS | f.TRANSPOSE | f.FLIP | f.EXPAND_AS | f.CAT | f.STACK
    | f.UNBIND | f.INDEX_SELECT | f.TOPK | f.REDUCE | f.SCANS | f.BY_ELEMENT | f.GLU | _RECURRENT | _OF_TWO | f.ROTATE
)  # fmt: skip

GAPS = (
    Gap("Axis rule", _COUNTED_ONLY, "rare in exported networks: counted, but what reaches it stays whole"),
    Gap("Axis rule", _UNNORMALISED, "stands only in graphs that are not normalised; left in one, it pins"),
    Gap(
        "Constants",
        f.EINSUM | f.WEIGHT_NORM | f.GATHER | f.SORT | f.TOPK | f.ONE_HOT | f.TRIANGLE | f.GLU | _RECURRENT | _UNRULED
        | _OF_TWO | _PLACED | f.FROM_COLUMNS | f.DIFFERENCE,
        "known only where all operands are tensors of the network, because then the operator itself is run on them",
    ),
    Gap("Constants", f.UNFILLED, "its elements are whatever lay in memory"),
    Gap("Rewrite", _WITHOUT_SIZES, "no argument says a size or a position along a dimension that can get shorter"),
    Gap("Rewrite", f.REPEAT_INTERLEAVE, "says how often, not how many: what is repeated got shorter"),
    Gap(
        "Rewrite", f.WINDOWS | f.UNPOOL | f.SAMPLE | f.TO_COLUMNS | f.FROM_COLUMNS,
        "its sizes are along space, which is pinned",
    ),
    Gap(
        "Rewrite", f.CHANNEL_SHUFFLE | f.PIXEL_SHUFFLE,
        "the number of groups stays: equal offsets of all groups go together",
    ),
    Gap(
        "Rewrite", f.DISPLACE | f.INDEX | f.GATHER | f.SCATTER | f.DIFFERENCE | f.SORT | f.NUMBERS | f.TRIANGLE,
        "the dimensions that its arguments speak of are pinned",
    ),
    Gap("Rewrite", _UNRULED, "has no axis rule, so nothing of it goes"),
    Gap("Reads", _UNRULED, "has no axis rule: whatever goes must be 0 for it"),
    Gap("Axis rule", f.SIZE, "gives a number, which has no labels"),
    Gap("Constants", f.SIZE, "gives a number, which the shapes know"),
    Gap("Rewrite", f.SIZE, "reads the new size by itself"),
    Gap("Reads", f.SIZE, "taken for a reader of values so far: whatever goes must be 0 for it"),
)  # fmt: skip
"""Reasons of the families named."""

OTHERS: Mapping[str, str] = {
    "MACs": "multiplies no values that are summed up: not counted, as in torch's own counter",
    "From ONNX": "no importer writes it: ONNX has other operators for it",
}
"""Columns in which any further family may have nothing, and why."""


def cells(family: f.Family) -> dict[str, str]:
    """What every column says of a family, "" for nothing."""
    return {
        "Axis rule": _functions(RULES, family, "pointwise"),
        "Constants": _functions(TRANSFERS, family, "element_by_element"),
        "Rewrite": _functions(REWRITES, family, ""),
        "Reads": _functions(READS, family, "passes"),
        "MACs": "counted" if all(overload in MAC_RULES for overload in family) and family.overloads else "",
        "From ONNX": _some([kind for kind, written in _written().items() if written & set(family)]),
    }


def _functions(entries: Mapping[Any, Any], family: f.Family, by_element: str) -> str:
    """The functions that a table has for a family; `by_element` for overloads that are covered without an entry."""
    names = dict.fromkeys(
        entries[overload].__name__.strip("_") if overload in entries else by_element
        for overload in family
        if overload in entries or f.works_by_element(overload)
    )
    return ", ".join(f"`{name}`" for name in names if name)


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


@cache
def _written() -> dict[str, set[Any]]:
    """The overloads that the importer of each ONNX operator can write, read off its source."""
    return {kind: _named_in(importer, kind, set()) for kind, importer in sorted(IMPORTERS.items())}


def _named_in(function: Any, kind: str, seen: set[Any]) -> set[Any]:
    """Overloads that a function names, itself or through functions and tables of the importers' modules."""
    seen.add(function)
    found: set[Any] = set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            packet = node.value
            if isinstance(packet.value, ast.Name) and packet.value.id == "aten":
                found.add(getattr(getattr(f.aten, packet.attr), node.attr))
        elif isinstance(node, ast.Name):
            found |= _behind(function.__globals__.get(node.id), kind, seen)
    return found


def _behind(value: Any, kind: str, seen: set[Any]) -> set[Any]:
    own = {module.__name__ for module in IMPORTER_MODULES}
    if inspect.isfunction(value):
        return _named_in(value, kind, seen) if value.__module__ in own and value not in seen else set()
    if isinstance(value, dict) and kind in value:
        value = value[kind]
    return set(_overloads_in(value))


def _overloads_in(value: Any) -> Iterator[Any]:
    """Overloads in a table; an operator without a named overload stands for all that it has."""
    if isinstance(value, f.OpOverload):
        yield value
    elif isinstance(value, (dict, tuple, list, frozenset)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _overloads_in(part)


def reasons(family: f.Family) -> dict[str, list[str]]:
    """Why a family has nothing, by column."""
    found: dict[str, list[str]] = {}
    for gap in GAPS:
        if family in (gap.families.families if isinstance(gap.families, f.Group) else (gap.families,)):
            found.setdefault(gap.column, []).append(gap.reason)
    known = cells(family)
    return {**{column: [reason] for column, reason in OTHERS.items() if not known[column]}, **found}


def operators() -> str:
    """One row per family, and below them the reasons of what is missing."""
    every = dict.fromkeys((*(gap.reason for gap in GAPS), *OTHERS.values()))
    numbers = {reason: i + 1 for i, reason in enumerate(every)}
    rows: list[tuple[str, ...]] = []
    for family in f.FAMILIES:
        overloads = ", ".join(f"`{name}`" for name in dict.fromkeys(map(f.operator_name, family)))
        missing = reasons(family)
        known = cells(family)
        rows.append(
            (
                family.name, overloads,
                *(known[column] or " ".join(f"({numbers[r]})" for r in missing.get(column, ())) for column in COLUMNS),
            )
        )  # fmt: skip
    told = "\n".join(f"{number}. {reason}" for reason, number in numbers.items())
    return f"{table(('Family', 'ATen operators', *COLUMNS), rows)}\n\nWhy nothing stands there:\n\n{told}"


PART = Part("operators.md", "operators", operators)
