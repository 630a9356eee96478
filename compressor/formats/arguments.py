"""Arguments of graph nodes <-> plain JSON values.

It must never hold anything that turns text into code: every tag below names one closed set of values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from compressor.errors import ModelError
from compressor.narrowing import is_dict, is_list, is_row, is_slice
from compressor.units import format_dtype

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|meta)(:\d{1,3})?", re.ASCII)
_INT64 = 2**63
_LONGEST_TEXT = 10_000
_MARKER = "# COUNTER"
"""torch.fx deletes every generated line that holds this comment, even inside a string."""

_DTYPES = {format_dtype(v): v for v in vars(torch).values() if isinstance(v, torch.dtype)}
_LAYOUTS = {format_dtype(v): v for v in vars(torch).values() if isinstance(v, torch.layout)}
_FORMATS = {format_dtype(v): v for v in vars(torch).values() if isinstance(v, torch.memory_format)}
_CLOSED: Mapping[str, tuple[type, Mapping[str, Any]]] = {
    "dtype": (torch.dtype, _DTYPES),
    "layout": (torch.layout, _LAYOUTS),
    "memory_format": (torch.memory_format, _FORMATS),
}
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any) -> Any:
    """The JSON form of one argument; an object with a single key tags what JSON has no form for.

    Raises:  ModelError if the value is of a type that a graph cannot hold.
    """
    if value is None or isinstance(value, bool) or type(value) is int:
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Node):
        return {"node": value.name}
    if is_row(value):
        parts = [encode(part) for part in value]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if is_dict(value):
        return {"dict": {_key(key): encode(part) for key, part in value.items()}}
    if is_slice(value):
        return {"slice": [encode(part) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for tag, (kind, _) in _CLOSED.items():
        if isinstance(value, kind):
            return {tag: format_dtype(value)}
    raise ModelError(f"an argument of type {type(value).__name__} cannot be kept in a checkpoint")


def decode(value: Any, nodes: Mapping[str, Node]) -> Any:
    """The argument that `encode` made the JSON form of; `nodes` are those that came before.

    Raises:  ModelError on an unknown tag or value, and on a node that did not come before.
    """
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise ModelError("an integer beyond 64 bits")
        return value
    if isinstance(value, str):
        return _text(value)
    if is_list(value):
        return [decode(part, nodes) for part in value]
    if is_dict(value) and len(value) == 1:
        ((tag, content),) = value.items()
        return _decode_tagged(tag, content, nodes)
    raise ModelError("an argument that is no known value")


def _decode_tagged(tag: str, content: Any, nodes: Mapping[str, Node]) -> Any:
    decoder = _TAGS.get(tag)
    if decoder is not None:
        return decoder(content, nodes)
    if tag in _CLOSED and isinstance(content, str) and content in _CLOSED[tag][1]:
        return _CLOSED[tag][1][content]
    raise ModelError(f"an argument that is no known value: {tag[:40]!r}: {str(content)[:40]}")


def _node(content: Any, nodes: Mapping[str, Node]) -> Node:
    if not isinstance(content, str) or content not in nodes:
        raise ModelError(f"it reads {str(content)[:60]!r}, which does not come before it")
    return nodes[content]


def _float(content: Any, nodes: Mapping[str, Node]) -> float:
    if not isinstance(content, str) or content not in _FLOATS:
        raise ModelError(f"not a number: {str(content)[:40]!r}")
    return _FLOATS[content]


def _tuple(content: Any, nodes: Mapping[str, Node]) -> tuple[Any, ...]:
    if not is_list(content):
        raise ModelError("a tuple that is no list of values")
    return tuple(decode(part, nodes) for part in content)


def _dict(content: Any, nodes: Mapping[str, Node]) -> dict[str, Any]:
    if not is_dict(content):
        raise ModelError("something that is not a dictionary")
    return {_text(key): decode(part, nodes) for key, part in content.items()}


def _slice(content: Any, nodes: Mapping[str, Node]) -> slice:
    if not is_list(content) or len(content) != 3:
        raise ModelError("a slice without its three parts")
    return slice(*(decode(part, nodes) for part in content))


def _device(content: Any, nodes: Mapping[str, Node]) -> torch.device:
    if not isinstance(content, str) or _DEVICE.fullmatch(content) is None:
        raise ModelError(f"an unknown device {str(content)[:40]!r}")
    return torch.device(content)


_TAGS: Mapping[str, Callable[[Any, Mapping[str, Node]], Any]] = {
    "node": _node,
    "float": _float,
    "tuple": _tuple,
    "dict": _dict,
    "slice": _slice,
    "device": _device,
}


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise ModelError(f"a dictionary key of type {type(key).__name__} cannot be kept in a checkpoint")
    return _text(key)


def _text(value: str) -> str:
    if len(value) > _LONGEST_TEXT or _MARKER in value:
        raise ModelError(f"a text that generated code cannot hold, of {len(value)} characters: {value[:40]!r}")
    return value
