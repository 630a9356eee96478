"""What goes into a network: name, shape and type of each input; it must never hold data.

A shape has None where the batch goes, so one specification serves every batch size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from compressor.errors import ModelError, UsageError
from compressor.input_text import INPUT_TYPES, read_input
from compressor.schema import read_as

Inputs: TypeAlias = "InputSpec | str | Tensor | Mapping[str, str | Tensor] | Sequence[InputSpec | str | Tensor]"


@dataclass(frozen=True)
class InputSpec:
    """One input: `shape` has None at the batch dimension; `high` bounds integer values (exclusive)."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    high: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in INPUT_TYPES:
            raise ModelError(
                f"input {self.name}: element type {self.dtype[:20]} is not supported; "
                f"use one of {', '.join(INPUT_TYPES)}"
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


def as_specs(inputs: Inputs) -> tuple[InputSpec, ...]:
    """Input specifications from what people have: a batch, `"1x28x28"`, a specification, or several of these.

    A tensor's first dimension is the batch. Integers may be as large as in the example. Names come from a dictionary.

    Raises:  UsageError for what says no shape.
    """
    if isinstance(inputs, Mapping):
        return tuple(_as_spec(value, i, name) for i, (name, value) in enumerate(inputs.items()))
    if isinstance(inputs, (InputSpec, str, Tensor)):
        inputs = (inputs,)
    return tuple(_as_spec(value, i) for i, value in enumerate(inputs))


def _as_spec(given: object, position: int, name: str | None = None) -> InputSpec:
    usual = name or ("input" if position == 0 else f"input_{position}")
    if isinstance(given, InputSpec):
        return given
    if isinstance(given, str):
        return parse_input(given if name is None else f"{name}:{given}", position)
    if not isinstance(given, Tensor):
        raise UsageError(
            f"input {usual}: got {type(given).__name__}; give a tensor with a batch in front, or a text without one, "
            'as "1x28x28"'
        )
    if given.dim() == 0:
        raise UsageError(f"input {usual}: is a single number; give a tensor whose first dimension is the batch")
    whole = not given.is_floating_point() and given.dtype != torch.bool
    high = int(given.max()) + 1 if whole and given.numel() else None
    return InputSpec(usual, (None, *given.shape[1:]), str(given.dtype).removeprefix("torch."), high)


def parse_input(text: str, position: int = 0) -> InputSpec:
    """An input from `3x224x224`, `ids:int64:128<30522` or `x=1,28,28`; the batch dimension is put in front.

    Raises:  UsageError if the text is not a shape.
    """
    name, sizes, dtype, high = read_input(text, position)
    return InputSpec(name, (None, *sizes), dtype, high)
