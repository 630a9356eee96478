"""What stands against a capture, in the user's words: what the code does, and what to write instead.

It must never hold how a capture is tried, nor swallow what it has no words for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.errors import ModelError, named_line
from compressor.typed_torch import named_modules

_BY_VALUE = (
    "its code decides by values that it computed",
    "a graph takes one way for all inputs: choose with torch.where, or end the graph before that: --until {}",
)
_TAKEN = re.compile(r"attribute '(?P<name>[^']+)' already exists")
_STRUCTURE = (IndexError, KeyError, TypeError, AttributeError, ValueError)


@dataclass(frozen=True)
class Refusal:
    """What torch raised, in words of the user's code; `way_out` is "" where nothing is known of it."""

    what: str
    way_out: str = ""


def refusal_of(error: BaseException, last_layer: str = "") -> Refusal:
    """What to say of an exception of `torch.export`; `last_layer` is the one that returned last before it."""
    line = named_line(error)
    if type(error).__name__ == "GuardOnDataDependentSymNode" or "data-dependent" in line:
        return Refusal(_BY_VALUE[0], _BY_VALUE[1].format(last_layer or "LAYER"))
    if ".numpy() is not supported" in line:
        way_out = "compute the same with torch operators, or end the graph before that: --until {}"
        return Refusal("it leaves torch for NumPy", way_out.format(last_layer or "LAYER"))
    taken = _TAKEN.search(line)
    if taken is not None:
        return Refusal(
            f"it has a tensor named {taken['name']}, which every graph has already", "give that tensor another name"
        )
    return Refusal(line)


def of_inputs(error: str) -> str:
    """What to try when the network does not run on plain tensors; "" where that is hardly it."""
    if not error.startswith(tuple(kind.__name__ for kind in _STRUCTURE)):
        return ""
    return "; where it takes a dict, a list or keywords, wrap it in a module whose forward takes one tensor each"


def refuse_sparse(module: nn.Module) -> None:
    """Raises:  ModelError for a tensor of the module that is not stored dense."""
    for name, tensor in _tensors(module):
        if tensor.layout is not torch.strided:
            kind = str(tensor.layout).removeprefix("torch.")
            raise ModelError(
                f"{name}: a tensor of layout {kind}, and a graph holds dense tensors only\n"
                f"keep {name}.to_dense() instead, or an edge list with index_add"
            )


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from (*module.named_parameters(), *module.named_buffers())
    for prefix, part in named_modules(module):
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                yield (f"{prefix}.{name}" if prefix else name), value
