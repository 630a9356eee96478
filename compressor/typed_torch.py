"""What is used of torch although its stubs leave the types out, each said once; it must never do more than the call.

torch describes `from_numpy` and `fork_rng` without the types of their arguments, and an operator's schema, which all
that looks into graphs reads, only under a name with an underscore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.utils.data
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from torch._C import FunctionSchema
    from typing_extensions import TypeIs

_torch: Any = torch
_utils: Any = torch.utils.data

default_collate: Callable[[list[Any]], Any] = _utils.default_collate
"""torch's own way to make one batch of items."""

Overload: TypeAlias = "OpOverload[..., Any]"
"""One operator of torch's, or of somebody else's, as a graph calls it."""


class DispatchMode(TorchDispatchMode):
    """While it is entered, `__torch_dispatch__` sees every operator that runs."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]


def is_overload(target: object) -> TypeIs[Overload]:
    """Whether a node calls an operator, and not a function of Python's."""
    return isinstance(target, OpOverload)


def schema_of(overload: object) -> FunctionSchema:
    """Names, types and defaults of its arguments and returns; only for what is known to be an operator."""
    held: Any = overload
    return held._schema


def symbol_of(size: object) -> Any:
    """What torch knows of a size that a trace left open; None for a plain number."""
    held: Any = size
    return held.node if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) else None


def named_modules(module: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """`module` and all modules in it; one that several names lead to under the first of them, or under each."""
    held: Any = module
    return held.named_modules(remove_duplicate=remove_duplicate)


def from_numpy(array: NDArray[Any]) -> Tensor:
    """A tensor that shares the array's memory."""
    return _torch.from_numpy(array)


def to_list(tensor: Tensor) -> list[Any]:
    """Its elements as numbers, a list in a list for each dimension."""
    given: Any = tensor
    return given.tolist()


def split(tensor: Tensor, size: int) -> tuple[Tensor, ...]:
    """Parts of `size` along the first dimension; the last one may be smaller."""
    given: Any = tensor
    return given.split(size)


def to_integers(index: Tensor) -> list[int]:
    """The same of positions, a row of them."""
    return to_list(index)


def backward(loss: Tensor) -> None:
    """Adds the loss's gradients to those of its parameters."""
    given: Any = loss
    given.backward()


def forked_cpu_rng() -> AbstractContextManager[None]:
    """The CPU's random numbers, put back as they were when the block ends; those of accelerators are left alone."""
    return _torch.random.fork_rng(devices=[])
