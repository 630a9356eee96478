"""Forms that a convolution with unused columns can take, each with the calls that compute it and its weight.

It must never decide which form is used: that is measured. All forms are exact; a column is one (channel, kernel row,
kernel column) position of the weight, unused when every filter has a zero there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

aten = torch.ops.aten

Call: TypeAlias = Callable[..., Node]
"""Makes a node from an operator and its arguments, at the place of the convolution."""

Used: TypeAlias = NDArray[np.bool_]
"""Which columns some filter uses. Shapes: (groups, channels per group, kernel height, kernel width)"""


@dataclass(frozen=True)
class Geometry:
    """What a conv2d is apart from its weights. `pads` are top, bottom, left, right; sizes are (height, width)."""

    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int

    @property
    def out_size(self) -> tuple[int, int]:
        height, width = (
            (self.size[d] + self.pads[2 * d] + self.pads[2 * d + 1] - self.dilation[d] * (self.kernel[d] - 1) - 1)
            // self.stride[d]
            + 1
            for d in (0, 1)
        )
        return height, width


class Form(Protocol):
    """One way to compute a convolution."""

    @property
    def name(self) -> str: ...

    @property
    def indices(self) -> Mapping[str, Tensor]:
        """Index buffers by the end of their names."""
        ...

    def weight(self, weight_OIHW: Tensor) -> Tensor:
        """The form's own weight (or mask), made from the convolution's by moving elements only."""
        ...

    def write(self, call: Call, x: Node, weight: Node, bias: Node | None, indices: Mapping[str, Node]) -> Node:
        """The calls; the last one is the result."""
        ...


@dataclass(frozen=True)
class Dense:
    """The convolution, or without a geometry the linear layer, as it is."""

    geometry: Geometry | None = None
    name: str = "dense"

    @property
    def indices(self) -> Mapping[str, Tensor]:
        return {}

    def weight(self, weight_OIHW: Tensor) -> Tensor:
        return weight_OIHW

    def write(self, call: Call, x: Node, weight: Node, bias: Node | None, indices: Mapping[str, Node]) -> Node:
        if self.geometry is None:
            return call(aten.linear.default, x, weight, bias)
        return _convolve(call, x, weight, bias, self.geometry, self.geometry.pads)


@dataclass(frozen=True)
class Box:
    """A smaller convolution: `channels` of each group, kernel rows and columns from `box` (top, bottom, left, right).

    Kernel position k of the box reads what position k + top of the whole kernel read, so the padding shrinks by top
    positions at that side; where none is left, the input is cropped. The output keeps its size.

    Shapes:  channels (groups, n), equally many in every group
    """

    geometry: Geometry
    name: str
    channels: tuple[tuple[int, ...], ...]
    box: tuple[int, int, int, int]

    @property
    def _per_group(self) -> int:
        return self.geometry.channels // self.geometry.groups

    @property
    def _gathers(self) -> bool:
        return len(self.channels[0]) < self._per_group

    @property
    def indices(self) -> Mapping[str, Tensor]:
        if not self._gathers:
            return {}
        chosen = [group * self._per_group + c for group, channels in enumerate(self.channels) for c in channels]
        return {"selected": torch.tensor(chosen)}

    def weight(self, weight_OIHW: Tensor) -> Tensor:
        """Shapes:  (O, I, Kh, Kw) -> (O, n, bottom - top, right - left)"""
        top, bottom, left, right = self.box
        boxed = weight_OIHW[:, :, top:bottom, left:right]
        of_groups = boxed.chunk(self.geometry.groups)
        return torch.cat([part[:, list(c)] for part, c in zip(of_groups, self.channels, strict=True)])

    def write(self, call: Call, x: Node, weight: Node, bias: Node | None, indices: Mapping[str, Node]) -> Node:
        if "selected" in indices:
            x = call(aten.index_select.default, x, 1, indices["selected"])
        pads = list(self.geometry.pads)
        for d in (0, 1):
            first, end = self.box[2 * d : 2 * d + 2]
            pads[2 * d] -= self.geometry.dilation[d] * first
            pads[2 * d + 1] -= self.geometry.dilation[d] * (self.geometry.kernel[d] - end)
            before, after = pads[2 * d : 2 * d + 2]
            if before < 0 or after < 0:
                end_at = self.geometry.size[d] + min(after, 0)
                x = call(aten.slice.Tensor, x, 2 + d, max(-before, 0), end_at)
        top, bottom, left, right = (max(amount, 0) for amount in pads)
        return _convolve(call, x, weight, bias, self.geometry, (top, bottom, left, right))


@dataclass(frozen=True)
class Columns:
    """The used columns only: one gather of input rows, each moved sideways already, then a 1x1 convolution that sums.

    The input is seen as rows (N, C·H, W). Each kernel column that is used reads them from another place on, so a `pad`
    or `slice` makes a copy of them moved by so much; a row of zeros behind the last copy is what lies beyond the upper
    and lower border. From all copies one gather takes, for every used (channel, kernel row, kernel column), the rows
    that the output's rows read. That is K + 3 calls however many columns there are; a slice in two directions and a
    gather for each kernel position would be 3 K². Gathering per kernel column first and moving afterwards was tried: it
    moves less where few columns are used, but oftener (640 columns of CaffeNet's conv2: 413 µs instead of 316).

    Shapes:  columns (groups, n, 3): channel in the group, kernel row, kernel column; sorted by kernel column
    """

    geometry: Geometry
    columns: tuple[tuple[tuple[int, int, int], ...], ...]
    name: str = "columns"

    @property
    def _moves(self) -> tuple[int, ...]:
        """The kernel columns that are used; what reads from the left border on comes first, for it needs no copy."""
        used = {column for columns in self.columns for _, _, column in columns}
        return tuple(sorted(used, key=lambda column: (self._start(column) != 0, column)))

    def _start(self, column: int) -> int:
        """Where the first output position reads, at a kernel column."""
        return column * self.geometry.dilation[1] - self.geometry.pads[2]

    @property
    def indices(self) -> Mapping[str, Tensor]:
        return {"rows": self._rows}

    @cached_property
    def _rows(self) -> Tensor:
        geometry, moves = self.geometry, self._moves
        per_group, height = geometry.channels // geometry.groups, geometry.size[0]
        copy_of = {column: i for i, column in enumerate(moves)}
        places = [
            (copy_of[column] * geometry.channels + group * per_group + channel, geometry.dilation[0] * row)
            for group, columns in enumerate(self.columns)
            for channel, row, column in columns
        ]
        plane, first_row = torch.tensor(places).T
        rows = first_row[:, None] + torch.arange(geometry.out_size[0]) * geometry.stride[0] - geometry.pads[0]
        inside = (rows >= 0) & (rows < height)
        return torch.where(inside, plane[:, None] * height + rows, len(moves) * geometry.channels * height).flatten()

    def weight(self, weight_OIHW: Tensor) -> Tensor:
        """Shapes:  (O, I, Kh, Kw) -> (O, n, 1, 1)"""
        parts = []
        for part, columns in zip(weight_OIHW.chunk(self.geometry.groups), self.columns, strict=True):
            channel, row, column = (list(place) for place in zip(*columns, strict=True))
            parts.append(part[:, channel, row, column])
        return torch.cat(parts)[:, :, None, None].contiguous()

    def write(self, call: Call, x: Node, weight: Node, bias: Node | None, indices: Mapping[str, Node]) -> Node:
        geometry, moves = self.geometry, self._moves
        n_rows = geometry.channels * geometry.size[0]
        rows = call(aten.reshape.default, x, [-1, n_rows, geometry.size[1]])
        needs_zeros = bool((self._rows == len(moves) * n_rows).any())
        copies = [self._moved(call, rows, column, with_zeros=needs_zeros and column == moves[-1]) for column in moves]
        joined = copies[0] if len(copies) == 1 else call(aten.cat.default, copies, 1)
        gathered = call(aten.index_select.default, joined, 1, indices["rows"])
        n_columns = sum(len(columns) for columns in self.columns)
        gathered = call(aten.reshape.default, gathered, [-1, n_columns, *geometry.out_size])
        return call(aten.conv2d.default, gathered, weight, bias, [1, 1], [0, 0], [1, 1], geometry.groups)

    def _moved(self, call: Call, rows: Node, column: int, *, with_zeros: bool) -> Node:
        """The rows from where a kernel column starts, one position per output position; a row of zeros behind them."""
        start, stride = self._start(column), self.geometry.stride[1]
        reach = (self.geometry.out_size[1] - 1) * stride + 1
        before, after = -start, start + reach - self.geometry.size[1]
        if before > 0 or after > 0 or with_zeros:
            rows = call(aten.pad.default, rows, [before, after, 0, 1] if with_zeros else [before, after])
            start, after = 0, 0
        if start > 0 or after < 0 or stride > 1:
            rows = call(aten.slice.Tensor, rows, 2, start, start + reach, stride)
        return rows


@dataclass(frozen=True)
class Features:
    """A linear layer that reads only some of its inputs."""

    features: tuple[int, ...]
    dim: int
    name: str = "gather"

    @property
    def indices(self) -> Mapping[str, Tensor]:
        return {"selected": torch.tensor(self.features)}

    def weight(self, weight_OIHW: Tensor) -> Tensor:
        """Shapes:  (O, I) -> (O, n)"""
        return weight_OIHW[:, list(self.features)]

    def write(self, call: Call, x: Node, weight: Node, bias: Node | None, indices: Mapping[str, Node]) -> Node:
        selected = call(aten.index_select.default, x, self.dim, indices["selected"])
        return call(aten.linear.default, selected, weight, bias)


def _convolve(
    call: Call, x: Node, weight: Node, bias: Node | None, geometry: Geometry, pads: tuple[int, int, int, int]
) -> Node:
    """A convolution whose padding may differ at opposite sides: what both share is its own, the rest a `pad` call."""
    top, bottom, left, right = pads
    own = [min(top, bottom), min(left, right)]
    rest = [left - own[1], right - own[1], top - own[0], bottom - own[0]]
    if any(rest):
        x = call(aten.pad.default, x, rest)
    return call(
        aten.conv2d.default, x, weight, bias, list(geometry.stride), own, list(geometry.dilation), geometry.groups
    )


def equal_columns(used: Used, readable: Used) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """The used columns of every group, made equally many by unused ones: a grouped convolution has one width.

    Shapes:  readable (Kh, Kw), what reads more than padding -> (groups, n, 3), each group sorted by kernel column
    """
    flat = used.reshape(used.shape[0], -1)
    never = np.broadcast_to(~readable, used.shape[1:]).reshape(-1)
    n = max(1, int(flat.sum(axis=1).max()))
    chosen = []
    for group in flat:
        order = np.argsort(2 * never + ~group, kind="stable")
        places = np.unravel_index(np.sort(order[:n]), used.shape[1:])
        columns = [(int(c), int(row), int(column)) for c, row, column in zip(*places, strict=True)]
        chosen.append(tuple(sorted(columns, key=lambda place: (place[2], place[1], place[0]))))
    return tuple(chosen)


def equal_channels(used: Used, multiple: int = 1) -> tuple[tuple[int, ...], ...]:
    """The channels that have a used column, made equally many in every group and a multiple, where that many exist.

    Shapes:  -> (groups, n)
    """
    alive: NDArray[np.bool_] = np.any(used, axis=(2, 3))
    n = max(1, int(alive.sum(axis=1).max()))
    n = min(-(-n // multiple) * multiple, alive.shape[1])
    return tuple(tuple(int(c) for c in np.sort(_first(group, n))) for group in alive)


def _first(used: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """All used positions and as many unused ones as make n. Shapes: (size,) -> (n,)"""
    return np.sort(np.argsort(~used, kind="stable")[:n])


def bounding_box(used: Used) -> tuple[int, int, int, int]:
    """The kernel rows and columns that any channel uses: top, bottom, left, right, the ends exclusive."""
    rows = np.flatnonzero(np.any(used, axis=(0, 1, 3)))
    columns = np.flatnonzero(np.any(used, axis=(0, 1, 2)))
    if not rows.size:
        return 0, 1, 0, 1
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
