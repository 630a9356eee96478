"""What goes into a network: name, shape and type of each input; it must never hold data.

A shape has None where the batch goes, so one specification serves every batch size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.errors import ModelError, UsageError
from compressor.program.element_types import ELEMENT_TYPES
from compressor.schema import read_as

_DTYPES = tuple(kind.name for kind in ELEMENT_TYPES if kind.is_input)
# A type in front of the shape is no name: float16:3x4.
_NAME = rf"(?P<name>(?!(?:{'|'.join(_DTYPES)}):)[A-Za-z_][\w.]*)"
_TEXT = re.compile(rf"^(?:{_NAME}[:=])?(?:(?P<dtype>[a-z]+\d*):)?(?P<dims>[\d]+(?:[x,][\d]+)*)(?:<(?P<high>\d+))?$")
_VALUE = re.compile(rf"^{_NAME}=(?P<value>-?\d+(?:\.\d*)?(?:e-?\d+)?)$")
"""A single number behind `=`: what a scalar input is to be. Whether it is that or a length, the network knows."""


@dataclass(frozen=True)
class InputSpec:
    """One input: `shape` has None at the batch dimension; `high` bounds integer values (exclusive).

    `value` is the number that `NAME=NUMBER` gave: what an input of one element is bound to, anything else ignores it.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    high: int | None = None
    value: float | None = None

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
        if self.value is not None and math.prod(shape) == 1:
            return torch.full(shape, self.value).to(self.torch_dtype)
        if self.torch_dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.torch_dtype)
        return torch.randint(0, self.high or 2, shape, generator=generator).to(self.torch_dtype)

    def to_mapping(self) -> dict[str, Any]:
        entry = {**asdict(self), "shape": list(self.shape)}
        del entry["value"]  # of the command line, not of the network
        return entry

    @staticmethod
    def from_mapping(entry: object) -> InputSpec:
        """Raises:  ModelError if the entry is not an input specification."""
        return read_as(InputSpec, entry, ModelError, "an input specification")


def told_by_name(names: Sequence[str], given: Sequence[InputSpec], where: str) -> dict[str, InputSpec]:
    """What the user said of inputs of these names: by name where each given name is one of them, else in order.

    Raises:  UsageError if there are more or fewer in order than inputs, with the names that there are.
    """
    if all(spec.name in names for spec in given):
        return {spec.name: spec for spec in given}
    if len(given) != len(names):
        listed = ", ".join(names[:6])
        raise UsageError(
            f"{where}: has {len(names)} inputs, --input gives {len(given)}; name each: NAME:3x224x224 ({listed})"
        )
    return dict(zip(names, given, strict=True))


def without_values(given: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The same, for a network whose inputs are no single numbers. Raises: UsageError for one that is but a number."""
    for spec in given:
        if len(spec.shape) < 2 and spec.value is not None:
            raise UsageError(f"--input {spec.name}={spec.value:g}: is no shape; only inputs of an ONNX file are bound")
    return tuple(given)


def parse_input(text: str, position: int = 0) -> InputSpec:
    """An input from `3x224x224`, `ids:int64:128<30522` or `x=1,28,28`; the batch dimension is put in front.

    `sr=16000` is a length, and a value for an input that holds but one number.

    Raises:  UsageError if the text is not a shape.
    """
    bare = text.replace(" ", "")
    match, bound = _TEXT.match(bare), _VALUE.match(bare)
    value = None if bound is None else float(bound["value"])
    if bound is not None and (match is None or value == 0):
        return InputSpec(bound["name"], (None,), value=value)
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
    return InputSpec(name, (None, *sizes), dtype, int(match["high"]) if match["high"] else None, value)
