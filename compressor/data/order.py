"""Which sample stands where in an epoch, and the random draws that belong to it.

It must never hold pixels, nor touch the global random number generators.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compressor.data.source import Split
from compressor.errors import UsageError

_HELD_OUT = 10
# One number per use: two uses must never share a stream of random numbers.
_PURPOSE = {"order": 1, "augment": 2, "sample": 3}
Purpose = Literal["order", "augment", "sample"]


class Order(NamedTuple):
    """One rank's share of an epoch.

    Shapes:  sample_N (N,) index in the split; position_N (N,) place in the epoch's order over all ranks.
    """

    sample_N: Tensor
    position_N: Tensor


def mixed_seed(purpose: Purpose, seed: int | None, *numbers: int) -> int:
    """A 64-bit seed that differs for every purpose, seed and numbers; None counts as seed 0."""
    entropy = [_PURPOSE[purpose], (seed or 0) % 2**64, *numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def epoch_order(
    n: int, split: Split, *, seed: int | None, epoch: int, limit: int | None, shard: tuple[int, int]
) -> Order:
    """The samples of one epoch for one rank.

    Raises:  UsageError if `limit` or `shard` is out of range.
    """
    rank, world = shard
    if not 0 <= rank < world:
        raise UsageError(f"shard {rank} of {world}: the rank must lie in 0..{world - 1}")
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: at least one sample must be left")
    if limit is not None:
        n = min(n, limit)
    sample_N = torch.arange(n)
    if split == "train":
        if seed is not None:
            generator = torch.Generator().manual_seed(mixed_seed("order", seed, epoch))
            sample_N = torch.randperm(n, generator=generator)
        n -= n % world
    return Order(sample_N[:n][rank::world], torch.arange(n)[rank::world])


def held_out(n: int) -> tuple[Tensor, Tensor]:
    """Samples to train on, and every tenth, the first at least, to validate on, where a data set has one part only.

    Shapes:  -> (n - n_val,), (n_val,); a single sample is in both
    """
    sample_N = torch.arange(n)
    is_val_N = sample_N % _HELD_OUT == 0
    return (sample_N if n == 1 else sample_N[~is_val_N]), sample_N[is_val_N]


def batch_slices(n: int, batch_size: int, split: Split) -> Iterator[slice]:
    """Consecutive slices of `batch_size`; a single sample left over at the end of `train` is dropped.

    Raises:  UsageError if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: must be at least 1")
    for start in range(0, n, batch_size):
        stop = min(start + batch_size, n)
        if split == "train" and stop - start == 1 < batch_size:
            return
        yield slice(start, stop)


def augmentation_draws(n: int, *, seed: int | None, epoch: int) -> Tensor:
    """Three numbers in [0, 1) for every position of an epoch: vertical shift, horizontal shift, flip.

    Shapes:  -> (n, 3)
    """
    generator = torch.Generator().manual_seed(mixed_seed("augment", seed, epoch))
    return torch.rand((n, 3), generator=generator)
