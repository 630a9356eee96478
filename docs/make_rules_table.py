"""The table of axis rules in axes.md, from the rules' own docstrings."""

from __future__ import annotations

from compressor.axes.table import RULES
from compressor.axes.walk import RULE_MODULES
from compressor.program.families import operator_name
from docs.generated import Part, by_function, first_line, table


def rules() -> str:
    """One row per rule: the operators it stands for, and the first line of its docstring."""
    found = by_function(RULES, RULE_MODULES)
    names = {rule: dict.fromkeys(map(operator_name, overloads)) for rule, overloads in found.items()}
    rows = ((", ".join(f"`{name}`" for name in names[rule]), first_line(rule)) for rule in found)
    return table(("ATen operators", "Rule"), rows)


PART = Part("axes.md", "rules", rules)
