"""How much a network that a file describes may hold, counted while it is built; it must never know what describes it.

A description is a few bytes, and asks for ten million layers as easily as for ten.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from compressor.errors import ModelError

_MOST_TENSORS = 20_000
"""Ten times the largest network that was ever captured; each takes half a millisecond to make."""
_MODULES_PER_TENSOR = 20
_SOME = 1 << 20
_BUFFERS = 1 << 28
"""Elements of masks of attention and tables of positions."""


@dataclass(frozen=True)
class Budget:
    """Limits of one network: tensors by number, elements of all tensors together, and the largest whole number in its
    description, which may be a count of layers or a width."""

    tensors: int = _MOST_TENSORS
    elements: int = 1 << 40
    largest: int = _SOME

    @staticmethod
    def of_weights(weights: Mapping[str, Tensor]) -> Budget:
        """For a network that these weights fill: tied ones stand in it twice, and buffers are not stored."""
        n_elements = sum(tensor.numel() for tensor in weights.values())
        return Budget(2 * len(weights) + 1000, 2 * n_elements + _BUFFERS, max(_SOME, n_elements))


def memory_bytes() -> int:
    """What this machine has; plenty where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 40


@contextmanager
def counted(name: str, budget: Budget) -> Generator[Callable[[], int]]:
    """Counts what modules take up in the block, in this thread; gives the elements so far.

    Raises:  ModelError through whatever builds, as soon as the budget is spent.
    """
    counts = {"tensors": 0, "modules": 0, "elements": 0}
    limits = {"tensors": budget.tensors, "modules": budget.tensors * _MODULES_PER_TENSOR, "elements": budget.elements}
    thread = threading.get_ident()

    def add(what: str, n: int) -> None:
        if threading.get_ident() == thread:
            counts[what] += n
            if counts[what] > limits[what]:
                raise ModelError(f"{name}: describes a network of more than {limits[what]:,} {what}; it is refused")

    def on_tensor(owner: nn.Module, key: str, value: Any) -> None:
        add("tensors", 1)
        add("elements", value.numel() if isinstance(value, Tensor) else 0)

    def on_module(owner: nn.Module, key: str, value: Any) -> None:
        add("modules", 1)

    handles = [
        registration.register_module_module_registration_hook(on_module),
        registration.register_module_parameter_registration_hook(on_tensor),
        registration.register_module_buffer_registration_hook(on_tensor),
    ]
    try:
        yield lambda: counts["elements"]
    finally:
        for handle in handles:
            handle.remove()


def tried(name: str, budget: Budget, make: Callable[[], object]) -> None:
    """Builds once without memory behind the tensors, to see what it comes to.

    Raises:  ModelError if it is over the budget, or more than this machine's memory holds in float32.
    """
    with counted(name, budget) as elements, torch.device("meta"):
        make()
    if elements() * 4 > memory_bytes():
        raise ModelError(
            f"{name}: describes a network of {elements():,} numbers, more than this machine's memory holds"
        )
