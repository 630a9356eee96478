"""Labels: ids along the dimensions of a value where they vary; it must never know an operator.

Labels live only on the dimensions along which they differ, so a walk costs what the weights' axes cost, not what the
activations do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from compressor.axes.ids import Ids


@dataclass(frozen=True)
class Label:
    """Ids of a value along `dims` (ascending); `ids` has one dimension per entry of `dims`.

    `zero` says that in the masked model a removed position holds exactly 0 here: a sum over it may then drop it.
    `absent` says that it holds minus infinity: a softmax over it, or a choice of the largest, may.
    """

    dims: tuple[int, ...]
    ids: Ids
    zero: bool = True
    absent: bool = False

    def at_rank(self, rank: int) -> Ids:
        """Ids as an array of `rank` dimensions, of size 1 where the label does not vary."""
        sizes = [1] * rank
        for dim, size in zip(self.dims, self.ids.shape, strict=True):
            sizes[dim] = size
        return self.ids.reshape(sizes)

    def shifted(self, by: int) -> Label:
        """The label of the same value with `by` dimensions put in front."""
        return replace(self, dims=tuple(dim + by for dim in self.dims)) if by else self

    def with_zero(self, zero: bool) -> Label:
        return self if zero == self.zero and not self.absent else replace(self, zero=zero, absent=False)


@dataclass(frozen=True)
class Value:
    """What the walk knows of one tensor: its sizes and its labels. `uniform`: all elements are the same constant.

    `why` says what stands behind dimensions without a label, for the reason of what meets them: an input of the
    network, an operator without a rule. `places` are the ids of what its whole numbers are positions among, where those
    are chosen so that a removed one is never among them.
    """

    sizes: tuple[int, ...]
    labels: tuple[Label, ...] = ()
    uniform: bool = False
    why: str = ""
    places: Ids | None = None

    @property
    def rank(self) -> int:
        return len(self.sizes)

    def along(self, dim: int) -> tuple[Label, ...]:
        """The labels that vary along `dim`."""
        return tuple(label for label in self.labels if dim in label.dims)

    def apart_from(self, dims: Iterable[int]) -> tuple[Label, ...]:
        """The labels that vary along none of `dims`."""
        excluded = set(dims)
        return tuple(label for label in self.labels if not excluded.intersection(label.dims))

    def normal_dim(self, dim: int) -> int:
        return dim % self.rank if self.rank else 0


Walked: TypeAlias = "Value | tuple[Walked, ...] | int | float | bool | None"


def from_array(ids: Ids, zero: bool) -> Label | None:
    """The label of an array of ids, with the dimensions dropped along which nothing varies; None if nothing varies."""
    dims: list[int] = []
    if not ids.size:
        return None
    for dim in range(ids.ndim):
        if ids.shape[dim] == 1:
            continue
        first = ids.take([0], axis=dim)
        if (ids == first).all():
            ids = first
        else:
            dims.append(dim)
    if not dims:
        return None
    return Label(tuple(dims), ids.reshape([ids.shape[dim] for dim in dims]), zero)


def factor(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """Runs of dimensions that a reshape maps onto each other: (3, 8, 6) -> (3, 48) gives ([0], [0]), ([1, 2], [1]).

    Shapes with equal products; sizes of 1 join a neighbour or stand alone. Where there are no elements, all is one run.
    """
    if 0 in before:
        return [(range(len(before)), range(len(after)))]
    groups: list[tuple[range, range]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        i0, j0 = i, j
        product_i = before[i] if i < len(before) else 1
        product_j = after[j] if j < len(after) else 1
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while product_i != product_j:
            if product_i < product_j:
                product_i *= before[i]
                i += 1
            else:
                product_j *= after[j]
                j += 1
        groups.append((range(i0, i), range(j0, j)))
    return groups


def flat_along(sizes: tuple[int, ...], dims: Iterable[int]) -> tuple[int, ...]:
    """`sizes` with 1 in place of those of `dims`."""
    flat = set(dims)
    return tuple(1 if dim in flat else size for dim, size in enumerate(sizes))


def reshape_label(label: Label, before: Sequence[int], after: Sequence[int]) -> Ids:
    """Ids of the reshaped value at full rank; only the runs of dimensions that the label touches are expanded."""
    ids = label.at_rank(len(before))
    expanded, result = reshape_steps(ids.shape, before, after)
    return np.broadcast_to(ids, expanded).reshape(result)


def reshape_steps(sizes: Sequence[int], before: Sequence[int], after: Sequence[int]) -> tuple[list[int], list[int]]:
    """What `sizes` (1 where nothing varies) expand to, and then reshape to, for a view of `before` as `after`."""
    expanded, result = list(sizes), list[int]()
    for run_before, run_after in factor(before, after):
        touched = any(sizes[dim] != 1 for dim in run_before)
        for dim in run_before:
            expanded[dim] = before[dim] if touched else 1
        result.extend(after[dim] if touched else 1 for dim in run_after)
    return expanded, result
