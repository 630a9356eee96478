"""The normal equations of a layer, summed up batch by batch: XᵀX, XᵀY and ‖Y‖²; it must never solve them.

What is held is of the size of the layer, not of its samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from compressor.program import Layer, arguments, families

_ROWS_PER_COLUMN = 6
_LEAST_ROWS = 8192
"""Equations for each unknown of a filter, and at least so many: beyond it the answer no longer moves."""


class Equations:
    """Of one layer: a last column of ones stands for its bias.

    Shapes:  gram (G, K + 1, K + 1), cross (G, K + 1, O / G), energy (O,) over G groups
    """

    def __init__(self, node: Node, layer: Layer, weight: Tensor, random: torch.Generator) -> None:
        self.layer, self.bound = layer, arguments(node)
        self.n_groups = int(self.bound.get("groups", 1))
        self.same = True
        """Whether what reached the layer so far is what reaches the dense one."""
        self._node, self._random = node, random
        shape = weight.movedim(layer.out_dim, 0).shape
        self._shape, k, o = shape, shape[1:].numel() + 1, shape[0]
        self.gram, self.cross, self.energy = (
            torch.zeros(sizes, dtype=torch.float64, device=weight.device)
            for sizes in ((self.n_groups, k, k), (self.n_groups, k, o // self.n_groups), (o,))
        )

    @property
    def bias(self) -> str | None:
        """The name of what is added, if it is a parameter with a number for each filter."""
        given = self.bound.get("self" if self._node.target in families.ADDED_PRODUCTS else "bias")
        return str(given.target) if isinstance(given, Node) and given.op == "get_attr" else None

    def add(self, x: Tensor, wanted: Tensor, counts: Tensor | None, share: float) -> None:
        """Rows of a share of all samples: what reaches the layer, what should come out, which positions count."""
        rows_RK, wanted_RO = self._rows(x, wanted, counts, share)
        self.energy += wanted_RO.double().square().sum(0)
        k = self.gram.shape[1] - 1
        for group, (gram, cross) in enumerate(zip(self.gram, self.cross, strict=True)):
            part = torch.cat([rows_RK[:, group * k : (group + 1) * k], torch.ones_like(rows_RK[:, :1])], dim=1)
            o = cross.shape[1]
            gram += (part.T @ part).double()
            cross += (part.T @ wanted_RO[:, group * o : (group + 1) * o]).double()

    def _rows(self, x: Tensor, wanted: Tensor, counts: Tensor | None, share: float) -> tuple[Tensor, Tensor]:
        """What is multiplied by the weights at sampled positions, and what should come out.

        Shapes:  -> (R, groups * K), (R, O)
        """
        if self._node.target not in families.CONVOLUTIONS:
            rows, targets = x.reshape(-1, x.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
            if counts is not None:
                chosen = counts.expand(*wanted.shape[:-1], 1).reshape(-1)
                rows, targets = rows[chosen], targets[chosen]
            picked = self._sample(len(rows), self._n_rows(share), x.device)
            return rows[picked].float(), targets[picked].float()
        bound, shape = self.bound, self._shape
        if self._node.target in families.CONV1D:
            x, wanted, shape = x.unsqueeze(2), wanted.unsqueeze(2), torch.Size((shape[0], shape[1], 1, shape[2]))
            bound = {**bound, **{key: _flat(bound[key], across) for key, across in _ACROSS.items()}}
        stride, dilation = _pair(bound["stride"]), _pair(bound["dilation"])
        kernel = (shape[2], shape[3])
        x = F.pad(x, _padding(bound["padding"], kernel, dilation))
        n_positions = wanted.shape[2] * wanted.shape[3]
        picked = self._sample(n_positions, -(-self._n_rows(share) // len(x)), x.device)
        patches_NKL = F.unfold(x, kernel, dilation=dilation, stride=stride)[:, :, picked]
        rows, targets = patches_NKL.movedim(1, 2).flatten(0, 1), wanted.flatten(2)[:, :, picked].movedim(1, 2)
        targets = targets.flatten(0, 1)
        if counts is not None:
            chosen = counts.expand(len(x), 1, -1)[:, 0, picked].flatten()
            rows, targets = rows[chosen], targets[chosen]
        return rows.float(), targets.float()

    def _n_rows(self, share: float) -> int:
        """Rows to take from a share of the samples."""
        wanted = max(_LEAST_ROWS, _ROWS_PER_COLUMN * self._shape[1:].numel())
        return max(1, int(-(-wanted * share // 1)))

    def _sample(self, n: int, wanted: int, device: torch.device) -> Tensor:
        if wanted >= n:
            return torch.arange(n, device=device)
        return torch.randperm(n, generator=self._random)[:wanted].sort().values.to(device)


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = [value] if isinstance(value, int) else list(value)
    return (int(first), int(rest[0] if rest else first))


_ACROSS: Mapping[str, int] = {"stride": 1, "padding": 0, "dilation": 1}
"""What a 1-D convolution does along the height of 1 that makes it a 2-D one."""


def _flat(value: Any, across: int) -> Any:
    if isinstance(value, str):
        return value
    return (across, value if isinstance(value, int) else value[0])


def _padding(padding: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> list[int]:
    """Left, right, top, bottom. `same` pads the odd pixel behind, as torch does."""
    if padding == "valid":
        return [0, 0, 0, 0]
    if padding == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [whole[1] // 2, whole[1] - whole[1] // 2, whole[0] // 2, whole[0] - whole[0] // 2]
    rows, columns = _pair(padding)
    return [columns, columns, rows, rows]
