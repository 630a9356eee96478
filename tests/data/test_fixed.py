"""Batches of the one size that a network takes: the same samples in the same order."""

from __future__ import annotations

import torch

from compressor.data import in_batches_of
from compressor.data.arrays import Arrays, ArraySource

SAMPLES = Arrays(torch.arange(7.0).reshape(7, 1), torch.arange(7))
SOURCE = ArraySource("numbers", SAMPLES, SAMPLES, 7)


def test_no_size_is_no_change() -> None:
    assert in_batches_of(SOURCE, None) is SOURCE
    assert in_batches_of(None, 3) is None


def test_batches_have_the_size_and_a_rest_is_left_out() -> None:
    fixed = in_batches_of(SOURCE, 3)
    for split in ("train", "val"):
        batches = list(fixed.batches(split, 1000, seed=1))
        whole = next(iter(SOURCE.batches(split, 7, seed=1)))
        assert [len(batch.inputs[0]) for batch in batches] == [3, 3]
        assert torch.equal(torch.cat([batch.target for batch in batches]), whole.target[:6])


def test_one_sample_at_a_time_leaves_nothing_out() -> None:
    for split in ("train", "val"):
        assert len(list(in_batches_of(SOURCE, 1).batches(split, 64, seed=0))) == 7


def test_all_else_is_the_sources() -> None:
    fixed = in_batches_of(SOURCE, 1)
    assert (fixed.ref, fixed.n_train, fixed.n_val, fixed.input_shapes) == ("numbers", 7, 7, ((1,),))
    assert len(list(fixed.batches("val", 5, limit=2))) == 2
