"""The order of an epoch: a pure function of seed and epoch, the same samples for any number of ranks."""

from __future__ import annotations

import pytest
import torch

from compressor.data.order import Order, augmentation_draws, batch_slices, epoch_order, mixed_seed
from compressor.data.source import Split
from compressor.errors import UsageError


def order(
    n: int = 50,
    split: Split = "train",
    *,
    seed: int | None = 3,
    epoch: int = 0,
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Order:
    return epoch_order(n, split, seed=seed, epoch=epoch, limit=limit, shard=shard)


def test_train_order_follows_seed_and_epoch_only() -> None:
    first = order().sample_N.tolist()
    torch.rand(5)
    assert order().sample_N.tolist() == first
    assert sorted(first) == list(range(50))
    assert order(epoch=1).sample_N.tolist() != first
    assert order(seed=4).sample_N.tolist() != first


def test_file_order_without_a_seed_and_in_val() -> None:
    assert order(seed=None).sample_N.tolist() == list(range(50))
    assert order(split="val").sample_N.tolist() == list(range(50))


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    order()
    augmentation_draws(5, seed=1, epoch=0)
    assert torch.equal(torch.rand(3), expected)


def test_limit_keeps_the_first_samples() -> None:
    assert sorted(order(limit=7).sample_N.tolist()) == list(range(7))
    assert order(split="val", limit=7).sample_N.tolist() == list(range(7))
    assert len(order(limit=1000).sample_N) == 50


def test_ranks_share_the_order_of_one_process() -> None:
    whole = order().sample_N
    parts = [order(shard=(rank, 3)) for rank in range(3)]
    assert [len(part.sample_N) for part in parts] == [16, 16, 16]  # 50 = 3 * 16 + 2: equal numbers of steps
    for part in parts:
        assert torch.equal(part.sample_N, whole[part.position_N])
    together = torch.cat([part.position_N for part in parts])
    assert sorted(together.tolist()) == list(range(48))


def test_val_ranks_leave_nobody_out() -> None:
    parts = [order(split="val", shard=(rank, 3)).sample_N for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(50))


def test_only_a_single_left_over_training_sample_is_dropped() -> None:
    def lengths(n: int, batch_size: int, split: Split) -> list[int]:
        return [part.stop - part.start for part in batch_slices(n, batch_size, split)]

    assert lengths(9, 4, "train") == [4, 4]
    assert lengths(9, 4, "val") == [4, 4, 1]
    assert lengths(10, 4, "train") == [4, 4, 2]
    assert lengths(3, 1, "train") == [1, 1, 1]


def test_draws_do_not_depend_on_how_many_are_asked_for() -> None:
    assert torch.equal(augmentation_draws(5, seed=2, epoch=3), augmentation_draws(9, seed=2, epoch=3)[:5])
    assert not torch.equal(augmentation_draws(5, seed=2, epoch=3), augmentation_draws(5, seed=2, epoch=4))


def test_every_use_has_its_own_stream() -> None:
    seeds = {mixed_seed("order", 1, 0), mixed_seed("augment", 1, 0), mixed_seed("sample", 1, 0)}
    assert len(seeds) == 3
    assert mixed_seed("order", None, 2) == mixed_seed("order", 0, 2)
    assert mixed_seed("order", -1, 2) != mixed_seed("order", 1, 2)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="batch size 0: must be at least 1"):
        list(batch_slices(4, 0, "val"))
    with pytest.raises(UsageError, match="limit 0: at least one sample"):
        order(limit=0)
    with pytest.raises(UsageError, match=r"shard 2 of 2: the rank must lie in 0\.\.1"):
        order(shard=(2, 2))
