"""A module traced to its units, for tests; it must never hold a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.axes import Keep, UnitMap, find_units
from compressor.program import InputSpec, Program, capture


@dataclass(frozen=True)
class Traced:
    """A program and its units."""

    program: Program
    units: UnitMap

    def along(self, name: str, dim: int) -> list[int]:
        """Unit of each index, -1 where pinned."""
        return self.units.axes[name, dim].tolist()

    def reason(self, name: str, dim: int = 0) -> str:
        """Why indices of an axis are pinned, or nothing."""
        pin = self.units.pin_at.get((name, dim))
        return pin.reason if pin is not None else ""

    def without(self, *gone: int) -> Keep:
        """A choice that drops these units."""
        return ~np.isin(np.arange(self.units.n_units), gone)


class Wrapped(nn.Module):
    """Named layers and a function that uses them."""

    def __init__(self, forward: Callable[..., Any], layers: dict[str, nn.Module | nn.Parameter]) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def trace(
    forward: Callable[..., Any] | nn.Module,
    *shapes: tuple[int, ...],
    specs: tuple[InputSpec, ...] = (),
    **layers: nn.Module | nn.Parameter,
) -> Traced:
    """The units of `forward(net, *inputs)` over `layers`; shapes are those of the inputs without the batch."""
    module = forward if isinstance(forward, nn.Module) else Wrapped(forward, layers)
    inputs = specs or tuple(InputSpec(f"x{i}", (None, *shape)) for i, shape in enumerate(shapes))
    program = capture(module, inputs)
    return Traced(program, find_units(program))
