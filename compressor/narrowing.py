"""Questions about a value from outside (a file, a user's object) that a type checker understands too.

After `isinstance(value, dict)` the checker calls keys and entries unknown; these say that they may be anything. They
must never look into what a container holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeIs


def is_mapping(value: object) -> TypeIs[Mapping[Any, Any]]:
    """Whether it is any kind of mapping."""
    return isinstance(value, Mapping)


def is_dict(value: object) -> TypeIs[dict[Any, Any]]:
    """Whether it is a dictionary, or of a class made from that."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeIs[list[Any]]:
    """Whether it is a list, or of a class made from that."""
    return isinstance(value, list)


def is_slice(value: object) -> TypeIs[slice[Any, Any, Any]]:
    """Whether it is a slice, the ends of which may be nodes of a graph."""
    return isinstance(value, slice)


def is_row(value: object) -> TypeIs[list[Any] | tuple[Any, ...]]:
    """Whether it is a list or a tuple."""
    return isinstance(value, (list, tuple))
