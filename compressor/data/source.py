"""The interface of every data set: what a batch is and what a source of batches can do.

It must never hold a reader of any format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

Split = Literal["train", "val"]


class Batch(NamedTuple):
    """What the model is called with, and what its outputs are compared with.

    Shapes:  every input (N, ...); target (N,) of class numbers for classification, else whatever the task
             reads; None where the data set has no labels.
    """

    inputs: tuple[Tensor, ...]
    target: Any


class DataSource(Protocol):
    """A data set with a train and a validation split."""

    @property
    def ref(self) -> str:
        """Canonical text that reopens it, with an absolute path inside."""
        ...

    @property
    def n_train(self) -> int: ...

    @property
    def n_val(self) -> int: ...

    @property
    def n_classes(self) -> int | None:
        """None when the targets are no class numbers, or nothing says how many classes there are."""
        ...

    @property
    def augments(self) -> bool:
        """Whether `augment` changes anything."""
        ...

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one sample of every input, without N."""
        ...

    def batches(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        augment: bool = False,
        limit: int | None = None,
        device: str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Batches of one pass over a split, on `device`.

        The order of `train` is a pure function of (seed, epoch), file order when `seed` is None;
        augmentation is a pure function of (seed, epoch, position in that order). `val` is in file order and
        never augmented. `limit` keeps the first samples of the split. `shard` (rank, world) takes every
        world-th sample; in `train` all ranks get equally many, so that no process waits for a step that
        another one never takes. The last, short batch is kept, but in `train` not when it holds a single
        sample (batch norm cannot train on it).

        Raises:  UsageError for a batch size, limit or shard out of range.
        """
        ...


def has_labels(source: DataSource) -> bool:
    """Whether batches have targets; a source that says nothing about it (`labelled`) has."""
    return bool(getattr(source, "labelled", True))
