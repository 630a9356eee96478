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

    def at(self, dim: int) -> tuple[int, ...]:
        return (int(self.tensor.shape[dim]),)

    def static(self, dim: int) -> int:
        return int(self.tensor.shape[dim])

    def spatial(self) -> list[int]:
        return list(self.tensor.shape[2:])


class Size:
    """An integer that depends on the batch size: a node of the graph, and its value at each trial.

    Arithmetic writes nodes; what comes out alike at every trial is a plain integer again.
    """

    def __init__(self, node: Node, values: tuple[int, ...]) -> None:
        self.node, self.values = node, values

    def _with(self, function: Callable[[Any, Any], Any], other: Any, *, swapped: bool = False) -> Any:
        if isinstance(other, np.integer):
            other = int(other)
        if not isinstance(other, (int, Size)) or isinstance(other, bool):
            raise ModelError("computes with the batch size and a number that is no integer")
        theirs = other.values if isinstance(other, Size) else (other,) * len(self.values)
        pairs = list(zip(theirs, self.values, strict=True) if swapped else zip(self.values, theirs, strict=True))
        try:
            found = tuple(function(a, b) for a, b in pairs)
        except ZeroDivisionError as error:
            raise ModelError("divides a size by 0") from error
        if len(set(found)) == 1:
            return found[0]
        nodes = (self.node, other.node if isinstance(other, Size) else other)
        node = self.node.graph.call_function(function, nodes[::-1] if swapped else nodes)
        node.meta["val"] = found[0]
        return Size(node, found)

    def __add__(self, other: Any) -> Any:
        return self._with(operator.add, other)

    def __radd__(self, other: Any) -> Any:
        return self._with(operator.add, other, swapped=True)

    def __sub__(self, other: Any) -> Any:
        return self._with(operator.sub, other)

    def __rsub__(self, other: Any) -> Any:
        return self._with(operator.sub, other, swapped=True)

    def __mul__(self, other: Any) -> Any:
        return self._with(operator.mul, other)

    def __rmul__(self, other: Any) -> Any:
        return self._with(operator.mul, other, swapped=True)

    def __floordiv__(self, other: Any) -> Any:
        return self._with(operator.floordiv, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._with(operator.floordiv, other, swapped=True)

    def __mod__(self, other: Any) -> Any:
        return self._with(operator.mod, other)

    def __neg__(self) -> Any:
        return self._with(operator.mul, -1)

    def compared(self, function: Callable[[Any, Any], bool], other: Any) -> bool:
        """The same answer at every batch. Raises: ModelError if it is not."""
        theirs = other.values if isinstance(other, Size) else (other,) * len(self.values)
        found = {bool(function(a, b)) for a, b in zip(self.values, theirs, strict=True)}
        if len(found) != 1:
            raise ModelError("branches on the batch size")
        return found.pop()


@dataclass(frozen=True, eq=False)
class Sizes:
    """An integer array with at least one entry that depends on the batch: shape arithmetic, done while importing.

    Shapes:  entries of any shape, objects: `int` or `Size`
    """

    entries: np.ndarray

    @property
    def rank(self) -> int:
        return self.entries.ndim

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64


Value: TypeAlias = Traced | Const | Sizes
Number: TypeAlias = int | Size


def of_entries(entries: Any, name: str, dtype: torch.dtype = torch.int64) -> Value:
    """Sizes, or a constant when no entry depends on the batch."""
    array = np.asarray(entries, dtype=object)
    if any(isinstance(entry, Size) for entry in array.flat):
        return Sizes(array)
    plain = np.array([int(entry) for entry in array.flat], dtype=np.int64).reshape(array.shape)
    return Const(torch.from_numpy(plain).to(dtype), name)


def entries_of(value: Value) -> np.ndarray:
    """The entries of sizes or of a constant. Raises: ModelError if they are computed from data."""
    if isinstance(value, Sizes):
        return value.entries
    if isinstance(value, Const):
        array = np.empty(tuple(value.tensor.shape), dtype=object)
        array[...] = np.array(value.tensor.tolist(), dtype=object).reshape(array.shape)
        return array
    raise ModelError("a shape that is computed from the network's own values is not supported")
