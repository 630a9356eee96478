"""`--print-config`: every option as the command would use it, and where it is from; it must never run a command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from compressor.cli.config import NEVER_IN_FILES, environment_values
from compressor.cli.declared import options_of, values_of
from compressor.cli.origins import Origins
from compressor.cli.standard import writing_result
from compressor.printable import printable

if TYPE_CHECKING:
    from compressor.cli.options import RunOptions
    from compressor.cli.session import Session

_DEFAULT = "default"
PRESET_KEY = "compressor.preset"
"""Where a run notes its preset, and the options that it filled in."""


def config_shower(context: typer.Context) -> Callable[[RunOptions, Session], None]:
    """A function that stands in for the command's own: it prints TOML, or one JSON object with --json."""

    def show(options: RunOptions, session: Session) -> None:
        values = {name: value for name, value in values_of(options).items() if name != "print_config"}
        names = list(values)
        types = {name: option.annotation for name, option in options_of(type(options)).items()}
        sources = _sources(context, names, types)
        if options.json:
            from compressor.report.jsonable import to_json

            rows = {name: {"value": values[name], "from": sources[name]} for name in names}
            session.told = True
            text = to_json("compress.config/1", {"command": session.command, "options": rows})
        else:
            text = printable("\n".join(_page(session.command, values, sources)))
        with writing_result():
            typer.echo(printable(text))

    return show


def _sources(context: typer.Context, names: list[str], types: Mapping[str, Any]) -> dict[str, str]:
    from_environment = environment_values(os.environ, types)
    file = context.meta.get(Origins.KEY, Origins()).file
    found: dict[str, str] = {}
    preset, filled = context.meta.get(PRESET_KEY, ("", frozenset()))
    for name in names:
        kind = getattr(context.get_parameter_source(name), "name", "DEFAULT")
        if kind == "COMMANDLINE":
            found[name] = "command line"
        elif kind == "DEFAULT_MAP":
            in_file = str(file.path) if file is not None else _DEFAULT
            found[name] = f"COMPRESS_{name.upper()}" if name in from_environment else in_file
        else:
            found[name] = f"preset {preset}" if name in filled else _DEFAULT
    return found


def _page(command: str, values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Lines of a compress.toml; what cannot stand in one, or has no value, is a comment."""
    rows = [(name.replace("_", "-"), _toml(value), sources[name]) for name, value in values.items()]
    rows = [(f"# {row[0]}", *row[1:]) if _is_comment(row[0], values) else row for row in rows]
    texts = [f"{name} = {value}" for name, value, _ in rows]
    width = min(max(map(len, texts)), 60)
    return [f"[{command}]", *(f"{text:<{width}}  # {row[2]}" for text, row in zip(texts, rows, strict=True))]


def _is_comment(name: str, values: Mapping[str, Any]) -> bool:
    own = name.replace("-", "_")
    return values[own] is None or own in NEVER_IN_FILES


def _toml(value: Any) -> str:
    """TOML and JSON write these the same way, a text's escapes too."""
    if value is None:
        return "unset"
    from compressor.report.jsonable import escaped

    return escaped(json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False), wide=True)
