"""The text of --input, read into name, sizes and type; it must never know a tensor."""

from __future__ import annotations

import re
from typing import NamedTuple

from compressor.errors import UsageError

INPUT_TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool", "uint8")
"""Of `program.element_types`, those that a network may be given."""
# A type in front of the shape is no name: float16:3x4.
_NAME = rf"(?P<name>(?!(?:{'|'.join(INPUT_TYPES)}):)[A-Za-z_][\w.]*)"
_VALUE = re.compile(rf"^{_NAME}=(?P<value>-?\d+(?:\.\d*)?(?:e-?\d+)?)$")
"""A single number behind `=`: what a scalar input is to be. Whether it is that or a length, the network knows."""
_TEXT = re.compile(
    rf"^(?:{_NAME}[:=])?"
    r"(?:(?P<dtype>[a-z]+\d*):)?(?P<dims>\(\)|SIZE(?:[x,]SIZE)*)(?:<(?P<high>\d+))?$".replace(
        "SIZE", r"(?:\d+|[A-Za-wyz_][A-Za-wyz_0-9]*(?:@\d+)?)"
    )
)
_EXAMPLE_LENGTH, _EXAMPLE_SIDE = 128, 224
"""Sizes of a dimension with a name where the user gives none: of a text, and of each of several (an image)."""


class InputText(NamedTuple):
    """Sizes are without the batch; `high` bounds whole numbers (exclusive); `free` names the dimensions, the batch
    among them, that take any size; empty where none does. `value` is the number behind `NAME=`."""

    name: str
    sizes: tuple[int, ...]
    dtype: str
    high: int | None
    free: tuple[str, ...] = ()
    value: float | None = None


def read_input(text: str, position: int = 0) -> InputText:
    """An input from `3x224x224`, `ids:int64:128<30522` or `x=1,28,28`.

    Raises:  UsageError if the text is not a shape.
    """
    bare = text.replace(" ", "")
    match, bound = _TEXT.match(bare), _VALUE.match(bare)
    value = None if bound is None else float(bound["value"])
    if bound is not None and (match is None or value == 0):
        return InputText(bound["name"], (), "float32", None, (), value)
    if match is None:
        raise UsageError(
            f"--input {text}: not a shape; write it without the batch, as 3x224x224 or ids:int64:128<30522\n"
            f"a name is a dimension of any size, as ids:int64:seq@128<30522 (no x in it); () is one value a sample"
        )
    names, sizes = _dimensions(match["dims"])
    if 0 in sizes:
        raise UsageError(f"--input {text}: a dimension of size 0")
    dtype = match["dtype"] or ("int64" if match["high"] else "float32")
    if dtype not in INPUT_TYPES:
        raise UsageError(f"--input {text}: unknown type {dtype}; use one of {', '.join(INPUT_TYPES)}")
    name = match["name"] or ("input" if position == 0 else f"input_{position}")
    free = ("", *names) if any(names) else ()
    return InputText(name, tuple(sizes), dtype, int(match["high"]) if match["high"] else None, free, value)


def _dimensions(text: str) -> tuple[list[str], list[int]]:
    """Names ("" for a number) and sizes of `3xheight@224xwidth@224`."""
    parts = [] if text == "()" else re.split("[x,]", text)
    split = [("", part) if part.isdigit() else (part.partition("@")[0], part.partition("@")[2]) for part in parts]
    usual = _EXAMPLE_SIDE if sum(bool(name) for name, _ in split) > 1 else _EXAMPLE_LENGTH
    return [name for name, _ in split], [int(size) if size else usual for _, size in split]
