"""From declared options to what typer needs: one table of a command's options; it must never hold a default itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from compressor.asking import Declared, declared
from compressor.cli.options import RunOptions

Chosen = TypeVar("Chosen", bound=RunOptions)
_NO_OPTIONS = ("asks", "said")


@dataclass(frozen=True)
class CommandOption:
    """One option of a command: its annotation for typer, and what it is when nobody says anything."""

    name: str
    annotation: Any
    default: Any
    is_own: bool
    """Whether it is a field of the command's options, not of a request in `asks`."""


def options_of(command: type[RunOptions]) -> dict[str, CommandOption]:
    """Every option by name, the command's own and asked ones before those it inherits: the order of --help."""
    found: dict[str, CommandOption] = {}
    for option in _all(command):
        found.setdefault(option.name, option)
    return found


def declarations(command: type[RunOptions]) -> Iterator[tuple[str, str]]:
    """Where every option of a command is declared, and its name: a request, or a class of options."""
    for kind in command.__mro__:
        for request in kind.__dict__.get("asks", ()):
            yield from ((one.place, one.name) for one in declared(request))
        yield from ((kind.__name__, name) for name in inspect.get_annotations(kind) if name not in _NO_OPTIONS)


def _all(command: type[RunOptions]) -> Iterator[CommandOption]:
    hints = get_type_hints(command, include_extras=True)
    defaults = {field.name: field.default for field in fields(command)}
    for kind in command.__mro__:
        for request in kind.__dict__.get("asks", ()):
            yield from (_asked(one) for one in declared(request))
        for name in inspect.get_annotations(kind):
            if name in hints and name not in _NO_OPTIONS:
                default = inspect.Parameter.empty if defaults[name] is MISSING else defaults[name]
                yield CommandOption(name, hints[name], default, True)


def read_options(command: type[Chosen], values: dict[str, Any]) -> Chosen:
    """The command's options from a value for each option name."""
    own = {name for name, option in options_of(command).items() if option.is_own}
    said = {name: value for name, value in values.items() if name not in own}
    return command(said=said, **{name: value for name, value in values.items() if name in own})


def values_of(options: RunOptions) -> dict[str, Any]:
    """What every option stands at, in the order of --help."""
    table = options_of(type(options))
    return {
        name: getattr(options, name) if option.is_own else options.said.get(name, option.default)
        for name, option in table.items()
    }


def _asked(one: Declared) -> CommandOption:
    said = one.option
    names = (said.flag, *said.flags)
    default = _default(one)
    told = one.told_default if said.unsaid else None
    help = said.help if told is None else f"{said.help} Default: {told}."
    completion = None if said.texts is None else _completion(said.texts)
    info = typer.Option(
        *names,
        help=help,
        rich_help_panel=said.panel,
        metavar=said.metavar,
        show_default=not said.unsaid,
        autocompletion=completion,
    )
    return CommandOption(one.name, Annotated[_kind(one), info], default, False)


def _kind(one: Declared) -> Any:
    """The type on the command line and in a file."""
    if one.option.switch is not None:
        return bool
    if one.option.repeat:
        return list[str] | None
    kind = str if one.option.read is not None else one.type
    return kind if kind is bool else kind | None


def _default(one: Declared) -> Any:
    if one.option.switch is not None:
        return False
    if one.option.repeat or (one.option.unsaid and one.type is not bool):
        return None
    return one.option.shown if one.option.read is not None else one.default


def _completion(texts: Any) -> Any:
    def complete(incomplete: str) -> list[str]:
        return [text for text in texts() if text.startswith(incomplete)]

    return complete
