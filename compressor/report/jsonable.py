"""Results as plain JSON; it must never round a number or turn one into text."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from compressor.asking.pattern import Pattern


def plain(value: Any) -> Any:
    """The value in dicts, lists, numbers and texts; NaN and infinities, which JSON lacks, become None.

    Units:   those of the dataclass's fields: seconds, bytes, counts, shares.
    Raises:  TypeError for what has no JSON form (a tensor, a function).
    """
    if isinstance(value, Pattern):
        return value.text
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [plain(part) for part in parts]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if getattr(value, "ndim", None) == 0:  # a numpy or torch scalar
        return plain(value.item())  # type: ignore[union-attr]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(schema: str, body: Mapping[str, Any]) -> str:
    """One JSON object on one line, `schema` first."""
    return as_json({"schema": schema, **plain(body)})


def as_json(value: Any) -> str:
    """Plain values on one line: letters of every script as they are, what a terminal would obey as `\\u....`."""
    return escaped(json.dumps(value, ensure_ascii=False, allow_nan=False))


def escaped(text: str, *, wide: bool = False) -> str:
    """Text of JSON in which nothing but printable characters is left; `wide` writes what is beyond 16 bits as TOML."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(ord(c), wide) for c in text)


def _escape(code: int, wide: bool) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    if wide:
        return f"\\U{code:08x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
