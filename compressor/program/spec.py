"""What goes into a network: name, shape and type of each input; it must never hold data.

A shape has None where the batch goes, so one specification serves every batch size.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.errors import ModelError, UsageError
from compressor.program.element_types import ELEMENT_TYPES
from compressor.schema import read_as

_DTYPES = tuple(kind.name for kind in ELEMENT_TYPES if kind.is_input)
# A type in front of the shape is no name: float16:3x4.
_TEXT = re.compile(
    rf"^(?:(?P<name>(?!(?:{'|'.join(_DTYPES)}):)[A-Za-z_]\w*)[:=])?"
    r"(?:(?P<dtype>[a-z]+\d*):)?(?P<dims>[\d]+(?:[x,][\d]+)*)(?:<(?P<high>\d+))?$"
)


@dataclass(frozen=True)
class InputSpec:
    """One input: `shape` has None at the batch dimension; `high` bounds integer values (exclusive)."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    high: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ModelError(
                f"input {self.name}: element type {self.dtype[:20]} is not supported; use one of {', '.join(_DTYPES)}"
            )
        if self.high is not None and self.high < 1:
            raise ModelError(f"input {self.name}: values below {self.high} are none; the bound must be 1 or more")

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def concrete(self, batch: int) -> tuple[int, ...]:
        """The shape with `batch` put in."""
        return tuple(batch if size is None else size for size in self.shape)

    def example(self, batch: int, seed: int = 0) -> Tensor:
        """A random input: standard normal, or uniform integers below `high`; the same for the same seed.

        Shapes:  -> (batch, ...)
        """
        generator = torch.Generator().manual_seed(seed)
        shape = self.concrete(batch)
        if self.torch_dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.torch_dtype)
        return torch.randint(0, self.high or 2, shape, generator=generator).to(self.torch_dtype)

    def to_mapping(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}

    @staticmethod
    def from_mapping(entry: object) -> InputSpec:
        """Raises:  ModelError if the entry is not an input specification."""
        return read_as(InputSpec, entry, ModelError, "an input specification")


def parse_input(text: str, position: int = 0) -> InputSpec:
    """An input from `3x224x224`, `ids:int64:128<30522` or `x=1,28,28`; the batch dimension is put in front.

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
    if dtype not in _DTYPES:
        raise UsageError(f"--input {text}: unknown type {dtype}; use one of {', '.join(_DTYPES)}")
    name = match["name"] or ("input" if position == 0 else f"input_{position}")
    return InputSpec(name, (None, *sizes), dtype, int(match["high"]) if match["high"] else None)
