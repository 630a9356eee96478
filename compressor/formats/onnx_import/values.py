"""What an ONNX value is while a graph is imported: traced, constant, or sizes that depend on the batch.

It must never hold how an operator is imported.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from compressor.errors import ModelError
from compressor.formats.onnx_import.budget import check_argument
from compressor.typed_torch import from_numpy, to_list

_LARGEST_WHOLE = 2**24
"""Up to here float32 holds every whole number."""


class BranchesError(ModelError):
    """Which of several networks the file is depends on the batch size."""


@dataclass(frozen=True, eq=False)
class Traced:
    """A value that the program computes; `metas` are its forms without data, one per trial batch size."""

    node: Node
    metas: tuple[Tensor, ...]

    @property
    def rank(self) -> int:
        return self.metas[0].dim()

    @property
    def dtype(self) -> torch.dtype:
        return self.metas[0].dtype

    def at(self, dim: int) -> tuple[int, ...]:
        """The size of a dimension, one per trial."""
        return tuple(int(meta.shape[dim]) for meta in self.metas)

    def static(self, dim: int) -> int:
        """The size of a dimension that does not depend on the batch.

        Raises:  ModelError if it does.
        """
        sizes = set(self.at(dim))
        if len(sizes) != 1:
            raise ModelError(f"dimension {dim} depends on the batch size, where a fixed size is needed")
        return sizes.pop()

    def spatial(self) -> list[int]:
        """The sizes behind batch and channels. Raises: ModelError as `static`."""
        return [self.static(dim) for dim in range(2, self.rank)]


@dataclass(frozen=True, eq=False)
class Const:
    """A tensor that the file holds, or that follows from such tensors alone.

    `name` is that of the initializer it came from, or of the ONNX value. `trained` tells weights of a network from
    numbers that its exporter wrote down (a `Constant` node, a shape).
    """

    tensor: Tensor
    name: str
    trained: bool = False

    @property
    def rank(self) -> int:
        return self.tensor.dim()

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def is_uniform(self) -> bool:
        """Whether all elements are equal: such tensors are equal by accident, and exporters store them once."""
        flat = self.tensor.reshape(-1)
        if flat.numel() < 2:
            return True
        return bool(flat[0] == flat[-1]) and bool((flat == flat[0]).all())  # the ends first: most tensors differ there

    @property
    def is_whole(self) -> bool:
        """Whether these are floats that are whole numbers, as sizes are where an exporter computes with floats."""
        if not self.tensor.is_floating_point():
            return False
        return bool(((self.tensor == self.tensor.round()) & (self.tensor.abs() < _LARGEST_WHOLE)).all())

    def at(self, dim: int) -> tuple[int, ...]:
        return (int(self.tensor.shape[dim]),)

    def static(self, dim: int) -> int:
        return int(self.tensor.shape[dim])

    def spatial(self) -> list[int]:
        return list(self.tensor.shape[2:])


class Size:
    """An integer or truth value that depends on the batch size: a node of the graph, and its value at each trial.

    Arithmetic writes nodes; what comes out alike at every trial is a plain number again.
    """

    def __init__(self, node: Node, values: tuple[int, ...]) -> None:
        self.node, self.values = node, values

    def __add__(self, other: Any) -> Any:
        return combined(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return combined(operator.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return combined(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Any:
        return combined(operator.sub, other, self)

    def __mul__(self, other: Any) -> Any:
        return combined(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        return combined(operator.mul, other, self)

    def __neg__(self) -> Any:
        return combined(operator.mul, self, -1)


def _plain(number: Any) -> Any:
    """A number of numpy's as one of Python's."""
    given = number
    return given.item() if isinstance(number, (np.integer, np.bool_)) else given


def combined(function: Callable[..., Any], *operands: Any) -> Any:
    """The function of integers and sizes: a plain number where it is the same at every trial, a new size otherwise.

    Raises:  ModelError if an operand is no integer, or it divides by 0.
    """
    plain = list(map(_plain, operands))
    if not all(isinstance(x, (int, Size)) for x in plain):
        raise ModelError("computes with the batch size and a number that is no integer")
    sizes = [x for x in plain if isinstance(x, Size)]
    n_trials = len(sizes[0].values) if sizes else 1
    try:
        found = tuple(function(*(value_at(x, trial) for x in plain)) for trial in range(n_trials))
    except ZeroDivisionError as error:
        raise ModelError("divides a size by 0") from error
    if len(set(found)) == 1:
        return found[0]
    node = sizes[0].node.graph.call_function(function, tuple(x.node if isinstance(x, Size) else x for x in plain))
    node.meta["val"] = found[0]
    return Size(node, found)


def value_at(number: Any, trial: int) -> Any:
    """A number or size at one trial."""
    return number.values[trial] if isinstance(number, Size) else number


@dataclass(frozen=True, eq=False)
class Sizes:
    """An array of integers or truth values, at least one of which depends on the batch: shape arithmetic.

    With a floating `dtype` they are floats in the file, and whole numbers all the same.

    Shapes:  entries of any shape, objects: `int`, `bool` or `Size`
    """

    entries: np.ndarray
    dtype: torch.dtype = torch.int64

    @property
    def rank(self) -> int:
        return self.entries.ndim


Value: TypeAlias = Traced | Const | Sizes
Number: TypeAlias = int | Size


def of_entries(entries: Any, name: str, dtype: torch.dtype = torch.int64) -> Value:
    """Sizes, or a constant when no entry depends on the batch."""
    array = np.asarray(entries, dtype=object)
    if any(isinstance(entry, Size) for entry in array.flat):
        return Sizes(array, dtype)
    plain = np.array([int(entry) for entry in array.flat], dtype=np.int64).reshape(array.shape)
    return Const(from_numpy(plain).to(dtype), name)


def entries_of(value: Value) -> np.ndarray:
    """The entries of sizes or of a constant. Raises: ModelError if they are computed from data."""
    if isinstance(value, Sizes):
        return value.entries
    if isinstance(value, Const):
        check_argument(value.tensor.numel())
        array = np.empty(tuple(value.tensor.shape), dtype=object)
        held = value.tensor.to(torch.int64) if value.is_whole else value.tensor
        array[...] = np.array(to_list(held), dtype=object).reshape(array.shape)
        return array
    raise ModelError("a shape that is computed from the network's own values is not supported")
