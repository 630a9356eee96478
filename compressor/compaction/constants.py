"""What is known of a value: which elements are constants of the network, and what they are; one table of transfers.

It must never hold the transfer of an operator: those live in the `transfer_*` modules.

Abstract interpretation on pairs (value, known). A dimension along which nothing differs has size 1, so what is known of
a network costs what its channels cost; whole maps appear only where a zero padding makes the border differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node

from compressor.program import is_learned
from compressor.program.family import Family, Group, OperatorTable


class Pair(NamedTuple):
    """Values and which of them are known, each broadcastable to the sizes of what they describe."""

    value: Tensor
    known: Tensor


@dataclass(frozen=True)
class Constants:
    """What is known of one tensor. `value` and `known` have its rank; where nothing is known, `value` is 0.

    `batch` are the dimensions whose size depends on the number of samples: nothing differs along them. `learned` says
    that a parameter that training changes went into what is known.
    """

    sizes: tuple[int, ...]
    value: Tensor
    known: Tensor
    batch: frozenset[int] = field(default_factory=frozenset)
    learned: bool = False

    @property
    def rank(self) -> int:
        return len(self.sizes)

    @property
    def any_known(self) -> bool:
        return bool(self.known.any())

    @property
    def all_known(self) -> bool:
        return bool(self.known.all())

    @property
    def exact(self) -> Tensor:
        """The values in float64 if they are floating."""
        return as_exact(self.value)

    @property
    def is_zero(self) -> Tensor:
        """Which elements are known to be 0."""
        return self.known & (self.value == 0)

    def normal_dim(self, dim: int) -> int:
        return dim % self.rank if self.rank else 0

    def normal_dims(self, dims: Any) -> tuple[int, ...]:
        """`dims` counted from 0; None or empty means all."""
        if dims is None or dims == []:
            return tuple(range(self.rank))
        return tuple(self.normal_dim(dim) for dim in (dims if isinstance(dims, (list, tuple)) else [dims]))

    def along(self, dims: Iterable[int]) -> Pair:
        """Value and known with their full size along `dims`."""
        return Pair(stretch(self.exact, self.sizes, dims), stretch(self.known, self.sizes, dims))

    def everywhere(self, dim: int) -> Tensor:
        """Which positions along `dim` are known wherever they occur. Shapes: -> (size of dim,)"""
        return over_others(self.known, dim, self.sizes[dim])

    def zero_everywhere(self, dim: int) -> Tensor:
        """Which positions along `dim` are known to be 0 wherever they occur. Shapes: -> (size of dim,)"""
        return over_others(self.is_zero, dim, self.sizes[dim])

    def differs_along(self, dim: int) -> Tensor:
        """Which positions along `dim` have values that differ over other dimensions. Shapes: -> (size of dim,)"""
        value = stretch(self.value, self.sizes, [dim]).movedim(dim, 0).reshape(self.sizes[dim], -1)
        return (value != value[:, :1]).any(1)

    def first_along(self, dim: int) -> Tensor:
        """The value at the first of the other positions. Shapes: -> (size of dim,)"""
        return stretch(self.exact, self.sizes, [dim]).movedim(dim, 0).reshape(self.sizes[dim], -1)[:, 0]


Walked: TypeAlias = "Constants | tuple[Walked, ...] | int | float | bool | None"
Found: TypeAlias = "Pair | list[Pair | None] | None"
Arguments: TypeAlias = dict[str, Any]
"""An operator's arguments by schema name, with `Constants` in place of each tensor and numbers for computed sizes."""

Transfer: TypeAlias = "Callable[[Node, Arguments, Any], Found]"
"""What is known of an operator's result, from the node, its arguments and the shape of the result; None: nothing."""

TRANSFERS: OperatorTable[Transfer] = OperatorTable("a transfer")


def transfer(*operators: Family | Group | OpOverload) -> Callable[[Transfer], Transfer]:
    """Register the transfer of operator families or single overloads; a second one for an operator is an error.

    Raises:  ValueError if an overload already has a transfer.
    """
    return TRANSFERS.register(*operators)


def nothing(sizes: tuple[int, ...], batch: frozenset[int] = frozenset()) -> Constants:
    """No element is known."""
    ones = (1,) * len(sizes)
    return Constants(sizes, torch.zeros(ones, dtype=torch.float64), torch.zeros(ones, dtype=torch.bool), batch)


def everything(tensor: Tensor) -> Constants:
    """All elements are known: a parameter or buffer, not copied if it is on the host, where all of this is computed."""
    known = torch.ones((1,) * tensor.dim(), dtype=torch.bool)
    return Constants(tuple(tensor.shape), tensor.detach().cpu(), known, learned=is_learned(tensor))


def settle(pair: Pair, sizes: tuple[int, ...], batch: frozenset[int]) -> Constants:
    """The constants of a transfer's result, at their smallest size.

    What differs along a dimension that depends on the number of samples is forgotten: with another number it would be
    something else.
    """
    value, known = as_exact(pair.value), pair.known
    for dim in batch:
        first = value.narrow(dim, 0, 1)
        known = (known & (value == first)).all(dim, keepdim=True)
        value = first
    known = collapse(known)
    if not known.any():
        return nothing(sizes, batch)
    return Constants(sizes, collapse(torch.where(known, value, torch.zeros_like(value))), known, batch)


def as_exact(tensor: Tensor) -> Tensor:
    """The tensor in float64, where it holds floating numbers."""
    return tensor.double() if tensor.is_floating_point() else tensor


def stretch(tensor: Tensor, sizes: tuple[int, ...], dims: Iterable[int]) -> Tensor:
    """The tensor at its full size along `dims`, without a copy."""
    wanted = list(tensor.shape)
    for dim in dims:
        wanted[dim] = sizes[dim]
    return tensor.expand(wanted)


def collapse(tensor: Tensor) -> Tensor:
    """The tensor with size 1 along every dimension where nothing differs."""
    for dim, size in enumerate(tensor.shape):
        if size > 1:
            first = tensor.narrow(dim, 0, 1)
            if bool((tensor == first).all()):
                tensor = first
    return tensor.contiguous()


def over_others(flags: Tensor, dim: int, size: int) -> Tensor:
    """Whether all flags are set, for each position along `dim`. Shapes: -> (size,)"""
    moved = flags.movedim(dim, 0).reshape(flags.shape[dim], -1).all(1)
    return moved.expand(size)


def tensors_in(structure: Any) -> list[Constants]:
    """All constants in a nested structure of arguments, in order."""
    if isinstance(structure, Constants):
        return [structure]
    parts = structure.values() if isinstance(structure, Mapping) else structure
    return [found for part in parts for found in tensors_in(part)] if isinstance(structure, (dict, tuple, list)) else []


def replaced(structure: Any, by: Callable[[Constants], Tensor]) -> Any:
    """Arguments with a tensor in place of all constants, and float64 for every other floating type."""
    if isinstance(structure, Constants):
        return by(structure)
    if isinstance(structure, torch.dtype) and structure.is_floating_point:
        return torch.float64
    if isinstance(structure, torch.device):
        return torch.device("cpu")
    if isinstance(structure, dict):
        return {key: replaced(part, by) for key, part in structure.items()}
    if isinstance(structure, (tuple, list)):
        return type(structure)(replaced(part, by) for part in structure)
    return structure


def run(node: Node, a: Arguments, by: Callable[[Constants], Tensor]) -> Any:
    """The node's own operator on the tensors that `by` makes of its constants."""
    return node.target(**replaced(a, by))  # type: ignore[operator]
