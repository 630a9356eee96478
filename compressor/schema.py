"""Values that come from a file, read strictly as the types that the code declares.

It must never know a format, or what a value is for: ranges and what must fit together are for the caller. Only here is
pydantic imported, and only when a file is read.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from compressor.errors import CompressError
from compressor.narrowing import is_dict
from compressor.regular import read_regular

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_INT64 = 2**63
_MOST_BYTES = 1 << 26
"""Of a file: the index of a model in a thousand shards has a tenth of it."""
_DEEPEST = 50
_MOST = 2**24
"""Characters and values together. Lists that hold themselves twice, forty levels deep, are small in a file and never
end when they are written out."""


def read_as(kind: type[T], value: object, error: type[CompressError], where: str) -> T:
    """The value, of plain JSON kinds, as `kind`: a dataclass, a TypedDict, or `dict[str, float]` and the like.

    Nothing is converted: a number is no text, no true is a one. Entries that `kind` does not have are left out: a newer
    version may have written them.

    Raises:  `error` naming the entry, what is there and what should be; also for what `check_plain` refuses.
    """
    from pydantic import ValidationError

    check_plain(value, error, where)
    try:
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as found:
        raise error(f"{where} cannot be read: {_told(found)}") from found


def read_json(path: Path, error: type[CompressError]) -> object:
    """What a JSON file of at most 64 MiB holds; how much of it is believed is for `read_as`.

    Raises:  `error` if it cannot be read, is too large, or is none.
    """
    return parse_json(read_regular(path, _MOST_BYTES, error), error, str(path))


def read_table(path: Path, error: type[CompressError]) -> dict[str, Any]:
    """The entries of a JSON file that holds one table.

    Raises:  `error` as `read_json`, and for anything but a table.
    """
    found = read_json(path, error)
    if not is_dict(found):
        raise error(f"{path}: cannot be read: holds a {type(found).__name__}, no table of entries")
    return found


def parse_json(content: bytes | str, error: type[CompressError], where: str) -> object:
    """What a JSON text says.

    Raises:  `error` naming `where` if it is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as found:  # no JSON, no UTF-8, a number of thousands of digits, too deep
        raise error(f"{where}: is no JSON: {str(found)[:100]}") from found


def check_plain(value: object, error: type[CompressError], where: str) -> None:
    """Nothing, when the value is made of what JSON has, with texts as keys, numbers of 64 bits, and an end.

    Raises:  `error` naming the first that is not.
    """
    waiting: list[tuple[object, int]] = [(value, 0)]
    n = 0
    while waiting:
        found, depth = waiting.pop()
        n += 1 + (len(cast("list[object]", found)) if type(found) in (str, list, dict) else 0)
        if n > _MOST or depth > _DEEPEST:
            raise error(f"{where} has no end; the file cannot be trusted")
        if type(found) is dict:
            table = cast("dict[object, object]", found)
            keys = [key for key in table if type(key) is str]
            if len(keys) < len(table):
                raise error(f"{where} holds a key that is no text; the file is damaged")
            n += sum(map(len, keys))
            waiting += [(part, depth + 1) for part in table.values()]
        elif type(found) is list:
            waiting += [(part, depth + 1) for part in cast("list[object]", found)]
        elif type(found) is int and not -_INT64 <= found < _INT64:
            raise error(f"{where} holds a number beyond 64 bits; the file is damaged")
        elif found is not None and type(found) not in (str, bool, int, float):
            raise error(f"{where} holds a {type(found).__name__}, which is no plain value; the file is damaged")


def is_number(value: object) -> bool:
    """Whether it is one that can be calculated with."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _told(found: ValidationError) -> str:
    """`steps.0.seed: Input should be a valid integer, not "x"`."""
    first = found.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:80]
    given = first.get("input")
    shown = "a table" if isinstance(given, dict) else "a list" if isinstance(given, list) else repr(given)[:40]
    return f"{place}: {first['msg']}, not {shown}" if place else f"{first['msg']}, not {shown}"
