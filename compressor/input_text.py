"""The text of --input, read into name, sizes and type; it must never know a tensor."""

from __future__ import annotations

import re
from typing import NamedTuple

from compressor.errors import UsageError

INPUT_TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool", "uint8")
"""Of `program.element_types`, those that a network may be given."""
# A type in front of the shape is no name: float16:3x4.
_TEXT = re.compile(
    rf"^(?:(?P<name>(?!(?:{'|'.join(INPUT_TYPES)}):)[A-Za-z_]\w*)[:=])?"
    r"(?:(?P<dtype>[a-z]+\d*):)?(?P<dims>[\d]+(?:[x,][\d]+)*)(?:<(?P<high>\d+))?$"
)


class InputText(NamedTuple):
    """Sizes are without the batch; `high` bounds whole numbers (exclusive)."""

    name: str
    sizes: tuple[int, ...]
    dtype: str
    high: int | None


def read_input(text: str, position: int = 0) -> InputText:
    """An input from `3x224x224`, `ids:int64:128<30522` or `x=1,28,28`.

    Raises:  UsageError if the text is not a shape.
    """
    match = _TEXT.match(text.replace(" ", ""))
    if match is None:
        raise UsageError(
            f"--input {text}: not a shape; write it without the batch, as 3x224x224 or ids:int64:128<30522"
        )
    sizes = tuple(int(size) for size in re.split("[x,]", match["dims"]))
    if 0 in sizes:
        raise UsageError(f"--input {text}: a dimension of size 0")
    dtype = match["dtype"] or ("int64" if match["high"] else "float32")
    if dtype not in INPUT_TYPES:
        raise UsageError(f"--input {text}: unknown type {dtype}; use one of {', '.join(INPUT_TYPES)}")
    name = match["name"] or ("input" if position == 0 else f"input_{position}")
    return InputText(name, sizes, dtype, int(match["high"]) if match["high"] else None)
