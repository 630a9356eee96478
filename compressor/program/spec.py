"""What goes into a network: name, shape and type of each input; it must never hold data.

A shape has None where the batch goes, so one specification serves every batch size. A dimension of any length has a
name; its size in the shape is the one that counts and examples are made at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
    r"(?:(?P<dtype>[a-z]+\d*):)?(?P<dims>\(\)|SIZE(?:[x,]SIZE)*)(?:<(?P<high>\d+))?$".replace(
        "SIZE", r"(?:\d+|[A-Za-wyz_][A-Za-wyz_0-9]*(?:@\d+)?)"
    )
)
_EXAMPLE_LENGTH, _EXAMPLE_SIDE = 128, 224
"""Sizes of a dimension with a name where the user gives none: of a text, and of each of several (an image)."""
_NAME = re.compile(r"[A-Za-z_]\w{0,40}")
_NO_LENGTHS: Mapping[str, int] = {}


@dataclass(frozen=True)
class InputSpec:
    """One input: `shape` has None at the batch dimension; `high` bounds integer values (exclusive).

    `free` names the dimensions that take any size, "" for all others; empty where there are none. The same name is the
    same size, in other inputs too.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    high: int | None = None
    free: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ModelError(
                f"input {self.name}: element type {self.dtype[:20]} is not supported; use one of {', '.join(_DTYPES)}"
            )
        if self.high is not None and self.high < 1:
            raise ModelError(f"input {self.name}: values below {self.high} are none; the bound must be 1 or more")
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
        if self.is_padding_mask:
            n_kept = torch.randint((shape[1] + 1) // 2, shape[1] + 1, (shape[0], 1), generator=generator)
            return (torch.arange(shape[1]) < n_kept).to(self.torch_dtype)
        if self.torch_dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.torch_dtype)
        return torch.randint(0, self.high or 2, shape, generator=generator).to(self.torch_dtype)

    def to_mapping(self) -> dict[str, Any]:
        entries = {key: value for key, value in asdict(self).items() if key != "free" or value}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in entries.items()}

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


def parse_input(text: str, position: int = 0) -> InputSpec:
    """An input from `3x224x224`, `ids:int64:128<30522`, `x=1,28,28`, with a name for what takes any size, as in
    `ids:int64:seq<30522` or `3xheight@224xwidth@224`, or `t:float32:()` for one value a sample; the batch dimension is
    put in front.

    Raises:  UsageError if the text is not a shape.
    """
    match = _TEXT.match(text.replace(" ", ""))
    if match is None:
        raise UsageError(
            f"--input {text}: not a shape; write it without the batch, as 3x224x224 or ids:int64:128<30522\n"
            f"a name is a dimension of any size, as ids:int64:seq@128<30522 (no x in it); () is one value a sample"
        )
    names, sizes = _dimensions(match["dims"])
    if 0 in sizes:
        raise UsageError(f"--input {text}: a dimension of size 0")
    dtype = match["dtype"] or ("int64" if match["high"] else "float32")
    if dtype not in _DTYPES:
        raise UsageError(f"--input {text}: unknown type {dtype}; use one of {', '.join(_DTYPES)}")
    name = match["name"] or ("input" if position == 0 else f"input_{position}")
    free = ("", *names) if any(names) else ()
    return InputSpec(name, (None, *sizes), dtype, int(match["high"]) if match["high"] else None, free)


def _dimensions(text: str) -> tuple[list[str], list[int]]:
    """Names ("" for a number) and sizes of `3xheight@224xwidth@224`."""
    parts = [] if text == "()" else re.split("[x,]", text)
    split = [("", part) if part.isdigit() else (part.partition("@")[0], part.partition("@")[2]) for part in parts]
    usual = _EXAMPLE_SIDE if sum(bool(name) for name, _ in split) > 1 else _EXAMPLE_LENGTH
    return [name for name, _ in split], [int(size) if size else usual for _, size in split]


def _is_free(name: str) -> bool:
    return not name or _NAME.fullmatch(name) is not None
