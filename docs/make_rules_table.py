"""Writes the table of axis rules in docs/axes.md from the rules' own docstrings.

python docs/make_rules_table.py
"""

from __future__ import annotations

from pathlib import Path

import compressor.axes  # noqa: F401 (fills the table of rules)
from compressor.axes.table import RULES
from compressor.axes.walk import RULE_MODULES

PAGE = Path(__file__).with_name("axes.md")
BEGIN, END = "<!-- rules: begin -->", "<!-- rules: end -->"


def table() -> str:
    """One row per rule: the operators it stands for, and the first line of its docstring."""
    modules = [module.__name__ for module in RULE_MODULES]
    own = [(overload, function) for overload, function in RULES.items() if function.__module__ in modules]
    own.sort(key=lambda entry: (modules.index(entry[1].__module__), entry[1].__code__.co_firstlineno))
    operators: dict[str, tuple[list[str], str]] = {}
    for overload, function in own:
        key = f"{function.__module__}.{function.__name__}"
        names, _ = operators.setdefault(key, ([], (function.__doc__ or "").strip().splitlines()[0]))
        name = overload._schema.name.removeprefix("aten::")
        if name not in names:
            names.append(name)
    rows = [f"| {', '.join(f'`{name}`' for name in names)} | {row} |" for names, row in operators.values()]
    return "\n".join(["| ATen operators | Rule |", "|---|---|", *rows])


def updated(page: str) -> str:
    """The page with the table as the rules are now."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
