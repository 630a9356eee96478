"""Batches from data that can only be gone through: iterable data sets, generators, loaders with an order of their own.

It must never leave the global random number generator changed, nor hold a whole pass in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from compressor.data.datasets import code_digest, collated_by, to_device
from compressor.data.digests import digest_of
from compressor.data.items import Wanted, as_batch, choose_inputs, joined, named_inputs, part_of
from compressor.data.order import batch_slices, epoch_order, mixed_seed
from compressor.data.source import Batch, Split
from compressor.errors import DataError
from compressor.typed_torch import forked_cpu_rng
from compressor.users_code import called

_MOST_SAMPLES = 2**24
_END = object()


@dataclass(frozen=True, eq=False)
class Stream:
    """One split: what begins a pass over it, whether it gives batches or single items, and how items are collated."""

    begin: Callable[[int], Iterable[Any]]
    in_batches: bool
    collate: Callable[[list[Any]], Any]

    def passed(self, where: str, seed: int, epoch: int) -> Iterator[Any]:
        """Collated batches of one pass, a single item as a batch of one.

        What the data draw from torch's generator follows from `seed`; between two batches it is the caller's.
        """
        state: torch.Tensor | None = None
        walk: Iterator[Any] = iter(())
        while True:
            with forked_cpu_rng():
                if state is None:
                    torch.default_generator.manual_seed(seed)
                    with called(where, DataError):
                        walk = iter(self.begin(epoch))
                else:
                    torch.set_rng_state(state)
                with called(where, DataError):
                    item = next(walk, _END)
                state = torch.get_rng_state()
            if item is _END:
                return
            yield item if self.in_batches else collated_by(self.collate, [item], f"{where}: items")


@dataclass(frozen=True, eq=False)
class StreamSource:
    """A DataSource over two streams; the order of training samples is the stream's own.

    `augment` is the data's own affair. Counts are those of a whole pass; a pass that gives more is ended there.
    """

    ref: str
    train: Stream
    val: Stream
    n_train: int
    n_val: int
    n_classes: int | None
    input_shapes: tuple[tuple[int, ...], ...]
    chosen: tuple[str, ...] | None = None

    @property
    def augments(self) -> bool:
        return False

    def fitted(self, wanted: Sequence[Wanted]) -> StreamSource:
        """As `DatasetSource.fitted`."""
        known = self.named("train")
        if not known:
            return self
        chosen = choose_inputs(known, wanted, self.ref)
        return replace(self, chosen=chosen, input_shapes=tuple(tuple(known[name].shape[1:]) for name in chosen))

    def named(self, split: Split) -> dict[str, Tensor]:
        """As `DatasetSource.named`, of the first batch."""
        return named_inputs(next(self._pass(split, 0, 0)), self.ref)

    def content_digest(self) -> str:
        """See `identity.identity_of_data`: the code and the counts; samples may be drawn anew in each pass."""
        return digest_of(code_digest(self.ref), self.n_train, self.n_val, self.n_classes, self.input_shapes)

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
        """Batches as DataSource.batches describes, but for the order of `train`."""
        n = self.n_train if split == "train" else self.n_val
        positions = epoch_order(n, split, seed=None, epoch=epoch, limit=limit, shard=shard).sample_N
        sizes = [part.stop - part.start for part in batch_slices(len(positions), batch_size, split)]
        own_seed = mixed_seed("sample", seed, epoch if split == "train" else 0)
        last = int(positions[-1]) + 1 if len(positions) else 0
        for batch in _rebatched(self._share(split, own_seed, epoch, last, shard), sizes, self.ref):
            yield to_device(batch, device)

    def _share(self, split: Split, seed: int, epoch: int, last: int, shard: tuple[int, int]) -> Iterator[Batch]:
        """What of every batch of a pass belongs to one process, up to sample `last`."""
        rank, world = shard
        begin = 0
        for collated in self._pass(split, seed, epoch):
            batch = as_batch(collated, self.ref, self.chosen)
            n = min(len(batch.inputs[0]), last - begin)
            first = (rank - begin) % world
            if first < n:
                whole = first == 0 and world == 1 and n == len(batch.inputs[0])
                yield batch if whole else part_of(batch, slice(first, n, world))
            begin += n
            if begin >= last:
                return

    def _pass(self, split: Split, seed: int, epoch: int) -> Iterator[Any]:
        stream = self.train if split == "train" else self.val
        return stream.passed(f"{self.ref}: the {split} data", seed, epoch)


def count(stream: Stream, where: str) -> int:
    """Samples of one pass, found by going through it.

    Raises:  DataError if it is empty or does not end.
    """
    n = 0
    for collated in stream.passed(where, 0, 0):
        n += len(as_batch(collated, where).inputs[0])
        if n > _MOST_SAMPLES:
            raise DataError(f"{where} does not end; give it a __len__ that says how many samples are one pass")
    if n == 0:
        raise DataError(f"{where} is empty")
    return n


def _rebatched(parts: Iterator[Batch], sizes: Sequence[int], where: str) -> Iterator[Batch]:
    """The same samples in batches of these sizes; the last one is short where there are fewer."""
    held: list[Batch] = []
    n_held = 0
    for size in sizes:
        while n_held < size and (part := next(parts, None)) is not None:
            held.append(part)
            n_held += len(part.inputs[0])
        if not n_held:
            return
        batch = joined(held, where)
        held = [part_of(batch, slice(size, None))] if n_held > size else []
        yield part_of(batch, slice(0, size)) if n_held > size else batch
        n_held = max(n_held - size, 0)
