"""Which single weights of a layer are cut together, and what that leaves; it must never rank or choose them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Grouping(Protocol):
    """Equal groups that a weight falls into."""

    @property
    def size(self) -> int:
        """Weights in one group."""
        ...

    def magnitudes(self, weight: Tensor) -> Tensor:
        """L2 norm of each group. Shapes: weight (...) -> (n_groups,)"""
        ...

    def all_of(self, flags: Tensor) -> Tensor:
        """Groups in which every flag is set. Shapes: flags in the weight's shape -> (n_groups,)"""
        ...

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """A choice of groups as a mask. Shapes: keep (n_groups,) -> `shape`"""
        ...


@dataclass(frozen=True)
class Singles:
    """Every weight by itself: `unstructured`."""

    size: int = 1

    def magnitudes(self, weight: Tensor) -> Tensor:
        return weight.detach().abs().flatten()

    def all_of(self, flags: Tensor) -> Tensor:
        return flags.flatten()

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        return keep.reshape(shape)


@dataclass(frozen=True)
class Blocks:
    """`rows` x `columns` blocks of the GEMM view: filters x (channel, kernel position), the position fastest."""

    rows: int
    columns: int
    out_dim: int

    @property
    def size(self) -> int:
        return self.rows * self.columns

    def misfit(self, shape: torch.Size) -> str | None:
        """Why the blocks do not tile a weight of this shape; None if they do."""
        n_rows, n_columns = shape[self.out_dim], math.prod(shape) // shape[self.out_dim]
        if n_rows % self.rows:
            return f"needs filters divisible by {self.rows}, got {n_rows}"
        if n_columns % self.columns:
            return f"needs channels x kernel positions divisible by {self.columns}, got {n_columns}"
        return None

    def magnitudes(self, weight: Tensor) -> Tensor:
        return self._tiled(weight.detach()).to(torch.float32).square().sum(dim=(1, 3)).sqrt().flatten()

    def all_of(self, flags: Tensor) -> Tensor:
        return self._tiled(flags).all(dim=3).all(dim=1).flatten()

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        moved = torch.Size((shape[self.out_dim], *(s for d, s in enumerate(shape) if d != self.out_dim)))
        n_rows = shape[self.out_dim] // self.rows
        tiles = keep.reshape(n_rows, -1).repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)
        return tiles.reshape(moved).movedim(0, self.out_dim).contiguous()

    def _tiled(self, tensor: Tensor) -> Tensor:
        """Shapes: weight (..., O, ...) -> (O / rows, rows, columns of blocks, columns)"""
        rows_first = tensor.movedim(self.out_dim, 0).flatten(1)
        n_rows, n_columns = rows_first.shape
        return rows_first.reshape(n_rows // self.rows, self.rows, n_columns // self.columns, self.columns)
