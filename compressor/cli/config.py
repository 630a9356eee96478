"""Options from compress.toml, [tool.compress] of pyproject.toml, and COMPRESS_* variables.

It must never hold defaults or act on a value: it hands typer what stands in for options that were not given.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from compressor.cli.config_file import PROJECT_NAME, ConfigFile, find_config, open_config
from compressor.cli.origins import Origins
from compressor.errors import ConfigError
from compressor.nearest import nearest
from compressor.printable import printable
from compressor.reference import split_reference
from compressor.terminal import prefix

PREFIX = "COMPRESS_"
_NEVER = (
    *("model", "models", "config", "output", "force", "resume", "dry_run", "explain", "print_config", "report", "plot"),
)
"""What is about one call only, and so stands on the command line only."""
_NEVER_IN_FILES = ("trust_pickle", "trust_code", "allow_config")
"""A file that lies in a cloned repository must not be able to say this."""
NEVER_IN_FILES = frozenset((*_NEVER, *_NEVER_IN_FILES))
_REFERENCES = ("arch", "data", "task", "teacher", "plugin", "train")
_OWN_VARIABLES = ("COMPRESS_DEBUG",)

Types = Mapping[str, Any]


def file_values(file: ConfigFile, command: str, commands: Mapping[str, Types]) -> dict[str, Any]:
    """Values for `command` by option name; the whole file is checked, tables of other commands too.

    Raises:  ConfigError naming file, table and key.
    """
    path, table = file.path, _read(file)
    shared = _shared(commands)
    chosen: dict[str, Any] = {}
    top = {key: value for key, value in table.items() if key not in commands}
    for key, value in top.items():
        name = _known(key, shared, f"{path.name}: {key}", commands)
        chosen[name] = _value(value, shared[name], f"{path.name}: {key}")
    for section in (key for key in table if key in commands):
        values = _section(path, section, table[section], commands[section])
        if section == command:
            chosen.update(values)
    offered = {name: value for name, value in chosen.items() if name in commands[command]}
    return {name: _anchored(name, value, path.parent) for name, value in offered.items()}


def environment_values(environment: Mapping[str, str], types: Types) -> dict[str, Any]:
    """Values from COMPRESS_NAME=text by option name; lists are separated by white space.

    Raises:  ConfigError naming the variable.
    """
    values: dict[str, Any] = {}
    for name in (name for name in types if name not in _NEVER):
        variable = PREFIX + name.upper()
        text = environment.get(variable)
        if text:
            values[name] = _from_text(text, types[name], f"{variable}={text}")
    return values


def unknown_variables(environment: Mapping[str, str], commands: Mapping[str, Types]) -> tuple[str, ...]:
    """COMPRESS_ variables that no command reads: worth a word, no reason to stop."""
    names = {PREFIX + name.upper() for types in commands.values() for name in types if name not in _NEVER}
    return tuple(sorted(v for v in environment if v.startswith(PREFIX) and v not in (*names, *_OWN_VARIABLES)))


def config_callback(context: typer.Context, value: str | None) -> str | None:
    """Fills the context's default map, so that the file and the environment stand in for absent options.

    The app hands down, as the context's object, what makes the table of every command's options: a file may speak of
    all of them.
    """
    if context.resilient_parsing:
        return value
    commands: Mapping[str, Types] = context.obj()
    command = str(context.info_name)
    file = find_config(Path.cwd()) if value is None else _named(value)
    values = file_values(file, command, commands) if file is not None else {}
    given = environment_values(os.environ, commands[command])
    context.default_map = {**values, **given}
    context.meta[Origins.KEY] = Origins(file, frozenset(values.keys() - given.keys()))
    if file is not None and file.found and file.is_foreign:
        _note(f"options are taken from {file.path}, which belongs to another user")
    for variable in unknown_variables(os.environ, commands):
        _note(f"{variable} is set but no option reads it")
    return value


def _note(text: str) -> None:
    typer.echo(f"{prefix('note:', 'yellow', sys.stderr)} {printable(text)}", err=True)


def _named(value: str) -> ConfigFile:
    if not Path(value).is_file():
        raise ConfigError(f"--config {value}: there is no such file")
    return open_config(Path(value).resolve(), found=False)


def _read(file: ConfigFile) -> dict[str, Any]:
    path = file.path
    try:
        table = tomllib.loads(file.content.decode())
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of thousands of digits
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if path.name != PROJECT_NAME:
        return table
    tools = table.get("tool", {})
    own = tools.get("compress", {}) if isinstance(tools, dict) else None
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: tool.compress must be a table")
    return own


def _shared(commands: Mapping[str, Types]) -> dict[str, Any]:
    """Options that more than one command has: what may stand above the tables of commands."""
    counts: dict[str, int] = {}
    for name in (name for types in commands.values() for name in types):
        counts[name] = counts.get(name, 0) + 1
    merged = {name: kind for types in commands.values() for name, kind in types.items()}
    return {name: kind for name, kind in merged.items() if counts[name] > 1 and name not in _NEVER}


def _section(path: Path, section: str, table: Any, types: Types) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path.name}: {section} must be a table: write [{section}] above its options")
    values: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{path.name}: [{section}] {key}"
        name = _known(key, types, where, {})
        if name in values:
            raise ConfigError(f"{where}: given twice, with - and with _; keep one of them")
        values[name] = _value(value, types[name], where)
    return values


def _known(key: str, types: Types, where: str, commands: Mapping[str, Types]) -> str:
    name = key.replace("-", "_")
    if name in types and name not in (*_NEVER, *_NEVER_IN_FILES):
        return name
    if name in _NEVER_IN_FILES or name in _NEVER:
        raise ConfigError(f"{where}: goes on the command line only, never into a file")
    homes = [command for command, known in commands.items() if name in known]
    if homes:
        raise ConfigError(f"{where}: is an option of {', '.join(homes)}; put it under [{homes[0]}]")
    known = [known.replace("_", "-") for known in types if known not in (*_NEVER, *_NEVER_IN_FILES)]
    near = nearest(key, [*known, *commands]) or known
    raise ConfigError(f"{where}: no such option; nearest known: {', '.join(near[:8])}")


def _parts(annotation: Any) -> tuple[Any, ...]:
    """`Annotated[list[str] | None, …]` -> (list[str],)."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return tuple(part for part in get_args(annotation) if part is not type(None))
    return (annotation,)


def _value(value: Any, annotation: Any, where: str) -> Any:
    """A TOML value as the option's type: no string stands for a number, no number for a switch."""
    kind = _parts(annotation)[0]
    scalar = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    if get_origin(kind) is list:
        items = value if isinstance(value, list) else [value]
        if all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in items):
            return [str(item) for item in items]
    elif (kind is bool and isinstance(value, bool)) or (kind is int and scalar and isinstance(value, int)):
        return value
    elif kind is float and scalar and not isinstance(value, str):
        return float(value)
    elif get_origin(kind) is Literal and value in get_args(kind):
        return value
    elif kind is str and scalar:
        return str(value)
    raise ConfigError(f"{where} = {_shown(value)}: must be {_wanted(kind)}")


def _from_text(text: str, annotation: Any, where: str) -> Any:
    kind = _parts(annotation)[0]
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    try:
        if get_origin(kind) is list:
            return text.split()
        if kind is bool:
            return words[text.lower()]
        if kind in (int, float):
            return kind(text)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{where}: must be {_wanted(kind)}") from error
    return _value(text, annotation, where)


def _wanted(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text or a number"}
    return names.get(kind, "a list of texts")


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):  # as deep as the file says; its text could be without end
        return "a table" if isinstance(value, dict) else "a list"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _anchored(name: str, value: Any, folder: Path) -> Any:
    """A reference to a path beside the file, made absolute: the file does not know where it is read from."""
    if name in _REFERENCES and isinstance(value, list):
        return [_anchored(name, part, folder) for part in value]
    if name not in _REFERENCES or not isinstance(value, str):
        return value
    source = (split_reference(value) or (value, ""))[0]
    if source.endswith(".py") and not Path(source).expanduser().is_absolute():
        return f"{folder / source}{value[len(source) :]}"  # there or nowhere: never one that lies where we happen to be
    for before, path, after in _splits(value):
        if path and not Path(path).is_absolute() and (folder / path).exists():
            return f"{before}{folder / path}{after}"
    return value


def _splits(text: str) -> Iterator[tuple[str, str, str]]:
    """`mnist:data` and `file.py:Net` as (before, path, after), every way it can be read."""
    yield "", text, ""
    head, colon, rest = text.partition(":")
    if colon:
        yield head + colon, rest, ""
        yield "", head, colon + rest
