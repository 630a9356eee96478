"""One pass over a split, for sources whose samples have numbers; it must never read a sample.

What a caller asks is said here once; a source only says how it makes the samples of a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from compressor.data.order import Order, augmentation_draws, batch_slices, epoch_order
from compressor.data.source import Batch, Split


@dataclass(frozen=True)
class Pass:
    """What was asked, and which samples it comes to: `slices` of `order` are the batches.

    `draws_N3` are the random numbers of each sample's augmentation, None where nothing is augmented.
    """

    split: Split
    seed: int | None
    epoch: int
    limit: int | None
    device: str
    order: Order
    slices: tuple[slice, ...]
    draws_N3: Tensor | None


class NumberedSource:
    """The part of a `DataSource` that is alike for all that can fetch a sample by its number."""

    @property
    @abstractmethod
    def n_train(self) -> int: ...

    @property
    @abstractmethod
    def n_val(self) -> int: ...

    @property
    @abstractmethod
    def augments(self) -> bool: ...

    @abstractmethod
    def fetched(self, asked: Pass) -> Iterator[Batch]:
        """The batches of one pass."""

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
        """Batches as DataSource.batches describes."""
        n = self.n_train if split == "train" else self.n_val
        order = epoch_order(n, split, seed=seed, epoch=epoch, limit=limit, shard=shard)
        slices = tuple(batch_slices(len(order.sample_N), batch_size, split))
        draws_N3 = None
        if augment and split == "train" and self.augments:
            draws_N3 = augmentation_draws(min(n, limit or n), seed=seed, epoch=epoch)[order.position_N]
        yield from self.fetched(Pass(split, seed, epoch, limit, device, order, slices, draws_N3))
