"""`--json` and `--table`: in which form a result goes to standard output; it must never hold how a table looks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from compressor.errors import UsageError

Form = Literal["text", "markdown", "csv", "json"]
_FORMS: Mapping[str, Form] = MappingProxyType({"text": "text", "markdown": "markdown", "csv": "csv"})
_TABLE = re.compile(r"(?P<form>text|markdown|csv)(?::(?P<name>\S+))?")


@dataclass(frozen=True)
class Printing:
    """The form, and for CSV the name of the table; None is the command's main one."""

    form: Form
    name: str | None = None


def read_printing(table: str | None, *, json: bool, output: str | None = None) -> Printing:
    """What the options --table and --json ask for, beside a model that goes to `output`.

    Raises:  UsageError for an unknown form, for two at once, and for data on a standard output that
             takes the model.
    """
    if table is None:
        return Printing("json" if json else "text")
    match = _TABLE.fullmatch(table)
    if match is None or (match["name"] and match["form"] != "csv"):
        raise UsageError(f"--table {table}: write text, markdown, csv, or csv:NAME for another table")
    if json:
        raise UsageError(f"--json and --table {table} both want standard output; choose one of them")
    if match["form"] != "text" and output == "-":
        raise UsageError(f"-o - and --table {table} both want standard output; write the model with -o FILE")
    return Printing(_FORMS[match["form"]], match["name"])


def table_forms(incomplete: str) -> list[str]:
    """What the shell may complete after --table."""
    return [form for form in _FORMS if form.startswith(incomplete)]
