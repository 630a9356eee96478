"""What goes into a network: name, shape and type of each input; it must never hold data.

A shape has None where the batch goes, so one specification serves every batch size. A dimension of any length has a
name; its size in the shape is the one that counts and examples are made at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from compressor.errors import ModelError, UsageError
from compressor.input_text import INPUT_TYPES, read_input
from compressor.narrowing import is_row
from compressor.schema import read_as

_NAME = re.compile(r"[A-Za-z_]\w{0,40}")
_NO_LENGTHS: Mapping[str, int] = {}
Inputs: TypeAlias = "InputSpec | str | Tensor | Mapping[str, str | Tensor] | Sequence[InputSpec | str | Tensor]"


@dataclass(frozen=True)
class InputSpec:
    """One input: `shape` has None at the batch dimension; `high` bounds integer values (exclusive).

    `free` names the dimensions that take any size, "" for all others; empty where there are none. The same name is the
    same size, in other inputs too. `value` is the number that `NAME=NUMBER` gave: what an input of one element is bound
    to, anything else ignores it.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    high: int | None = None
    free: tuple[str, ...] = ()
    value: float | None = None

    def __post_init__(self) -> None:
        if self.dtype not in INPUT_TYPES:
            raise ModelError(
                f"input {self.name}: element type {self.dtype[:20]} is not supported; "
                f"use one of {', '.join(INPUT_TYPES)}"
            )
        if self.high is not None and self.high < 1:
            raise ModelError(f"input {self.name}: there are no values below {self.high}; the bound must be 1 or more")
        if self.free and (len(self.free) != len(self.shape) or self.free[0] or not all(map(_is_free, self.free))):
            raise ModelError(f"input {self.name}: the names of its free dimensions do not fit its shape")

    @property
    def lengths(self) -> dict[str, int]:
        """The free dimensions by name, with the size that the shape has there."""
        return {name: size for name, size in zip(self.free, self.shape, strict=False) if name and size is not None}

    @property
    def is_padding_mask(self) -> bool:
        """Whether it says which positions of each sample count: 0 and 1 by type, a mask by name."""
        return self.high == 2 and self.name.endswith("mask") and len(self.shape) == 2

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def concrete(self, batch: int, lengths: Mapping[str, int] = _NO_LENGTHS) -> tuple[int, ...]:
        """The shape with `batch` put in, and `lengths` for the free dimensions of these names."""
        sizes = [batch if size is None else size for size in self.shape]
        return tuple(lengths.get(name, size) for name, size in zip(self.free or [""] * len(sizes), sizes, strict=True))

    def fixed(self, names: Iterable[str]) -> InputSpec:
        """The same input, these free dimensions fixed at the size that the shape has."""
        free = tuple("" if name in names else name for name in self.free)
        return replace(self, free=free if any(free) else ())

    def at(self, lengths: Mapping[str, int]) -> InputSpec:
        """The same input, its free dimensions as long as `lengths` says."""
        names = self.free or ("",) * len(self.shape)
        return replace(self, shape=tuple(lengths.get(n, size) for n, size in zip(names, self.shape, strict=True)))

    def accepts(self, sample: Sequence[int]) -> bool:
        """Whether a sample of this shape, without the batch, goes in. Shapes: sample (D, ...) without N"""
        own = self.shape[1:]
        names = self.free[1:] or ("",) * len(own)
        same = (name or size == given for name, size, given in zip(names, own, sample, strict=False))
        return len(own) == len(sample) and all(same)

    def example(self, batch: int, seed: int = 0, lengths: Mapping[str, int] = _NO_LENGTHS) -> Tensor:
        """A random input: standard normal, or uniform integers below `high`; the same for the same seed. A mask of
        padding is 1 in front of a random place, 0 behind.

        Shapes:  -> (batch, ...)
        """
        generator = torch.Generator().manual_seed(seed)
        shape = self.concrete(batch, lengths)
        if self.value is not None and math.prod(shape) == 1:
            return torch.full(shape, self.value).to(self.torch_dtype)
        if self.is_padding_mask:
            n_kept = torch.randint((shape[1] + 1) // 2, shape[1] + 1, (shape[0], 1), generator=generator)
            return (torch.arange(shape[1]) < n_kept).to(self.torch_dtype)
        if self.torch_dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.torch_dtype)
        return torch.randint(0, self.high or 2, shape, generator=generator).to(self.torch_dtype)

    def to_mapping(self) -> dict[str, Any]:
        entries = {key: value for key, value in asdict(self).items() if key != "free" or value}
        del entries["value"]  # of the command line, not of the network
        return {key: list(value) if is_row(value) else value for key, value in entries.items()}

    @staticmethod
    def from_mapping(entry: object) -> InputSpec:
        """Raises:  ModelError if the entry is not an input specification."""
        return read_as(InputSpec, entry, ModelError, "an input specification")


def all_lengths(inputs: Iterable[InputSpec]) -> dict[str, int]:
    """The free dimensions of all inputs by name, with their example sizes.

    Raises:  UsageError if one name has two sizes.
    """
    found: dict[str, int] = {}
    for spec in inputs:
        for name, size in spec.lengths.items():
            if found.setdefault(name, size) != size:
                raise UsageError(
                    f"--input {spec.name}: {name} is {size} here and {found[name]} in an input before\n"
                    f"one name is one size: give each the same @size, or another name"
                )
    return found


def other_lengths(inputs: Iterable[InputSpec]) -> tuple[dict[str, int], ...]:
    """Sizes of the free dimensions to compare a network at beside those of the shape: all shorter and odd, all longer,
    and of several each alone. Empty where none is free."""
    lengths = all_lengths(inputs)
    if not lengths:
        return ()
    shorter = {name: max(size // 2 - 1 + size // 2 % 2, 1) for name, size in lengths.items()}
    longer = {name: size * 2 for name, size in lengths.items()}
    alone = [{name: size} for name, size in longer.items()] if len(lengths) > 1 else []
    return (shorter, longer, *alone)


def misfit(inputs: Sequence[InputSpec], samples: Sequence[Sequence[int]]) -> InputSpec | None:
    """The first input that a sample of these shapes does not go in at; None if it goes in. Shapes without N, as many as
    there are inputs."""
    lengths: dict[str, int] = {}
    for spec, sample in zip(inputs, samples, strict=True):
        if not spec.accepts(sample):
            return spec
        for name, size in zip(spec.free[1:], sample, strict=False):
            if name and lengths.setdefault(name, size) != size:
                return spec
    return None


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
    """An input from `3x224x224`, `ids:int64:128<30522`, `x=1,28,28`, with a name for what takes any size, as in
    `ids:int64:seq<30522` or `3xheight@224xwidth@224`, or `t:float32:()` for one value a sample; the batch dimension is
    put in front.

    `sr=16000` is a length, and a value for an input that holds but one number.

    Raises:  UsageError if the text is not a shape.
    """
    found = read_input(text, position)
    return InputSpec(found.name, (None, *found.sizes), found.dtype, found.high, found.free, found.value)


def _is_free(name: str) -> bool:
    return not name or _NAME.fullmatch(name) is not None
