"""The declaration of an option: what a field of a request is called, means and allows, said once.

A request is a frozen dataclass whose fields are made by `option` or `group`. Help, flags, keys of compress.toml and
environment variables are read off these declarations, and so are the checks that a Python caller meets. It must never
know which command asks, nor import torch.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from compressor.errors import UsageError
from compressor.nearest import did_you_mean

T = TypeVar("T")
_KEY = "compressor.option"
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Range:
    """Numbers that a value may be, and how they are called in a message."""

    text: str
    holds: Callable[[float], bool]


def at_least(least: float) -> Range:
    """Numbers from `least` on."""
    return Range(f"at least {least:g}", lambda value: value >= least)


def above(limit: float) -> Range:
    """Numbers above `limit`."""
    return Range(f"above {limit:g}", lambda value: value > limit)


def above_up_to(limit: float, most: float) -> Range:
    """Numbers above `limit`, `most` included."""
    return Range(f"above {limit:g}, at most {most:g}", lambda value: limit < value <= most)


def from_to(least: float, most: float) -> Range:
    """Numbers from `least` to `most`, both included."""
    return Range(f"from {least:g} to {most:g}", lambda value: least <= value <= most)


def from_below(least: float, limit: float) -> Range:
    """Numbers from `least` on, below `limit`."""
    return Range(f"from {least:g} to below {limit:g}", lambda value: least <= value < limit)


@dataclass(frozen=True)
class Option:
    """What is declared about one field.

    `name` is the long flag and the key in a file, `flags` further spellings. `read` turns the text of the command line
    into the field's value; with `repeat` it is given all texts. `switch` is the value of a field that the bare flag
    stands for. A field that is `unsaid` is left to the request's own
    default unless somebody says it. `shown` words a default that is not a plain value; `texts` offers completions.
    """

    help: str
    name: str
    panel: str | None = None
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    range: Range | None = None
    read: Callable[[Any], Any] | None = None
    repeat: bool = False
    switch: Any = None
    unsaid: bool = False
    shown: str | None = None
    texts: Callable[[], tuple[str, ...]] | None = None

    @property
    def is_public(self) -> bool:
        """Whether the command line has it; a `setting` is known from Python and from recipes in files only."""
        return bool(self.help)

    @property
    def flag(self) -> str:
        """What a message calls it."""
        return "--" + self.name.replace("_", "-") if self.is_public else self.name


def option(default: Any, help: str, *, name: str = "", factory: bool = False, **more: Any) -> Any:
    """A field of a request that is an option; `name` is only needed where it differs from the field's."""
    declared = {_KEY: Option(help, name, **more)}
    if factory:
        return dataclasses.field(default_factory=default, metadata=declared)
    return dataclasses.field(default=default, metadata=declared)


def setting(default: Any, range: Range | None = None) -> Any:
    """A field of a request that is checked like an option but is not one."""
    return dataclasses.field(default=default, metadata={_KEY: Option("", "", range=range)})


def group(kind: type[Any]) -> Any:
    """A field of a request that is a request itself; its options stand beside those of the outer one."""
    return dataclasses.field(default_factory=kind, metadata={_KEY: kind})


@dataclass(frozen=True)
class Declared:
    """An option together with the field it belongs to: its name, type and default, and the class it stands in."""

    option: Option
    field: str
    kind: Any
    default: Any
    place: str

    @property
    def name(self) -> str:
        return self.option.name

    @property
    def type(self) -> Any:
        """The field's type without `| None`."""
        parts = [part for part in _union(self.kind) if part is not type(None)]
        return parts[0]

    @property
    def may_be_none(self) -> bool:
        return type(None) in _union(self.kind)

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def told_default(self) -> str | None:
        """The default in words, where silence is not already written into the flag."""
        if self.option.shown is not None:
            return self.option.shown
        return (
            None if self.default is None or self.type is bool or self.option.switch is not None else str(self.default)
        )


def declared(request: type[Any]) -> Iterator[Declared]:
    """Every option of a request, its own before those it inherits, those of its groups in their place."""
    own = {one.field: one for one in _own(request)}
    by_name = {field.name: field for field in dataclasses.fields(request)}
    order = [name for kind in request.__mro__ for name in inspect.get_annotations(kind) if name in by_name]
    for name in dict.fromkeys(order):
        said = by_name[name].metadata.get(_KEY)
        if isinstance(said, type):
            yield from declared(said)
        elif name in own and own[name].option.is_public:
            yield own[name]


def _own(request: type[Any]) -> Iterator[Declared]:
    """Options and settings among a request's own fields."""
    hints = get_type_hints(request)
    for field in dataclasses.fields(request):
        said = field.metadata.get(_KEY)
        if isinstance(said, Option):
            told = said if said.name else dataclasses.replace(said, name=field.name)
            default = field.default if field.default is not dataclasses.MISSING else None
            place = next(kind for kind in request.__mro__ if field.name in inspect.get_annotations(kind))
            yield Declared(told, field.name, hints[field.name], default, place.__name__)


def build(request: type[T], values: Mapping[str, Any]) -> T:
    """The request that was asked for by option name, as text or as the value itself; what is None or not there keeps
    its default.

    Keys that are fields of the request without being options are taken as they are.

    Raises:  UsageError for text that cannot be read, or a value out of range.
    """
    taken: dict[str, Any] = {}
    own = {one.field: one for one in _own(request)}
    for field in dataclasses.fields(request):  # type: ignore[arg-type]
        said = field.metadata.get(_KEY)
        if isinstance(said, type):
            taken[field.name] = values[field.name] if field.name in values else build(said, values)
        elif said is None:
            if field.name in values:
                taken[field.name] = values[field.name]
        elif (value := values.get(own[field.name].name)) is not None:
            taken[field.name] = _taken(own[field.name], value)
    return request(**taken)


def _taken(one: Declared, value: Any) -> Any:
    if one.option.switch is not None:
        return one.option.switch if value else one.default
    if one.option.repeat:
        texts: tuple[Any, ...] = (value,) if isinstance(value, str) else tuple(value)
        if not texts:
            return one.default if one.default is not None else ()
        return one.option.read(texts) if one.option.read and isinstance(texts[0], str) else texts
    return one.option.read(value) if one.option.read and isinstance(value, str) else value


def check(request: Any) -> None:
    """Every option of a request held against its type, choices and range; whole numbers become floats where floats
    are meant.

    Raises:  UsageError naming the option, its value and what is allowed.
    """
    kind = cast("type[Any]", type(request))
    for one in _own(kind):
        value = getattr(request, one.field)
        if one.type is float and type(value) is int:
            value = float(value)
            object.__setattr__(request, one.field, value)
        if value is None and (one.may_be_none or one.default is None):
            continue
        _check_one(one, value)


def _check_one(one: Declared, value: Any) -> None:
    if one.choices:
        if value not in one.choices:
            hint = did_you_mean(str(value), one.choices, most=1)
            known = f"choose one of {', '.join(one.choices)}{f'; {hint}' if hint else ''}"
            raise UsageError(f"{one.option.flag} {value}: {known}")
        return
    if one.type not in _KINDS:
        return
    shown = f"{value:g}" if type(value) is float else str(value)
    if type(value) is not one.type or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{one.option.flag} {shown}: must be {_KINDS[one.type]}")
    allowed = one.option.range
    if allowed is not None and isinstance(value, (int, float)) and not allowed.holds(value):
        raise UsageError(f"{one.option.flag} {shown}: must be {allowed.text}")


def _union(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
