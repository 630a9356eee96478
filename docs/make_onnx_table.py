"""Writes the tables of ONNX operators in docs/onnx.md from the importers' own docstrings.

python docs/make_onnx_table.py
"""

from __future__ import annotations

from pathlib import Path

from compressor.formats.onnx_import.operators import IMPORTER_MODULES
from compressor.formats.onnx_import.table import IMPORTERS, REFUSED, SIZE_IMPORTERS

PAGE = Path(__file__).with_name("onnx.md")
BEGIN, END = "<!-- operators: begin -->", "<!-- operators: end -->"


def table() -> str:
    """One row per importer: the operators it stands for, and the first line of its docstring; then the refusals."""
    modules = [module.__name__ for module in IMPORTER_MODULES]
    own = [(kind, function) for kind, function in IMPORTERS.items() if function.__module__ in modules]
    own.sort(key=lambda entry: (modules.index(entry[1].__module__), entry[1].__code__.co_firstlineno))
    rows: dict[str, tuple[list[str], str]] = {}
    for kind, function in own:
        key = f"{function.__module__}.{function.__name__}"
        kinds, _ = rows.setdefault(key, ([], (function.__doc__ or "").strip().splitlines()[0]))
        kinds.append(f"`{kind}`" + (" ¹" if kind in SIZE_IMPORTERS else ""))
    reasons: dict[str, list[str]] = {}
    for kind, reason in REFUSED.items():
        reasons.setdefault(reason, []).append(f"`{kind}`")
    return "\n".join(
        [
            f"{len(IMPORTERS)} operators, and `If` where its condition is known while importing.\n",
            "| ONNX operators | ATen |",
            "|---|---|",
            *(f"| {', '.join(kinds)} | {row.replace('|', chr(92) + '|')} |" for kinds, row in rows.values()),
            "",
            "Known and refused:",
            "",
            "| ONNX operators | Why |",
            "|---|---|",
            *(f"| {', '.join(kinds)} | {reason} |" for reason, kinds in reasons.items()),
        ]
    )


def updated(page: str) -> str:
    """The page with the tables as the importers are now."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
