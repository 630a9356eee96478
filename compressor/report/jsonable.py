"""Results as plain JSON; it must never round a number or turn one into text."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """The value in dicts, lists, numbers and texts; NaN and infinities, which JSON lacks, become None.

    Units:   those of the dataclass's fields: seconds, bytes, counts, shares.
    Raises:  TypeError for what has no JSON form (a tensor, a function).
    """
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
    return json.dumps({"schema": schema, **plain(body)}, ensure_ascii=False, allow_nan=False)
