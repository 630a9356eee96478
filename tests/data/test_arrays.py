"""ArraySource: normalisation, augmentation and sharding against arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.data.arrays import Arrays, ArraySource, Normalisation, flip, normalise, shift
from compressor.errors import DataError


def images(n: int, side: int = 8) -> Arrays:
    generator = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return Arrays(pixels, torch.arange(n))


def source(shift_pad: int = 2) -> ArraySource:
    scale = Normalisation((0.5, 0.25, 0.125), (0.5, 2.0, 1.0))
    return ArraySource("test", images(11), images(5), 11, scale, shift_pad, flip=shift_pad > 0)


def test_uint8_becomes_normalised_floats_per_channel() -> None:
    data = source()
    batch = next(data.batches("val", 5))
    expected = (data.val.inputs.double() / 255 - torch.tensor([0.5, 0.25, 0.125]).view(1, 3, 1, 1)) / torch.tensor(
        [0.5, 2.0, 1.0]
    ).view(1, 3, 1, 1)
    assert batch.inputs[0].dtype == torch.float32
    torch.testing.assert_close(batch.inputs[0].double(), expected, rtol=0, atol=1e-6)
    assert batch.target.tolist() == [0, 1, 2, 3, 4]
    assert data.val.inputs.dtype == torch.uint8


def test_floats_are_as_they_are_without_normalisation() -> None:
    x = torch.randn(4, 7)
    assert torch.equal(normalise(x, None), x)
    before = x.clone()
    assert torch.equal(normalise(x, Normalisation((1.0,), (2.0,))), (before - 1) / 2)
    assert torch.equal(x, before)


def test_inputs_and_targets_stay_together_in_any_order() -> None:
    data = source()
    plain = {int(t): x for b in data.batches("train", 11) for x, t in zip(b.inputs[0], b.target, strict=True)}
    seen = 0
    for batch in data.batches("train", 4, seed=1, epoch=2):
        for x, number in zip(batch.inputs[0], batch.target, strict=True):
            assert torch.equal(x, plain[int(number)])
            seen += 1
    assert seen == 11


def test_augmentation_depends_on_seed_epoch_and_position_only() -> None:
    data = source()

    def epoch(batch_size: int, number: int, shard: tuple[int, int] = (0, 1)) -> Tensor:
        parts = data.batches("train", batch_size, seed=5, epoch=number, augment=True, limit=10, shard=shard)
        return torch.cat([batch.inputs[0] for batch in parts])

    whole = epoch(10, 0)
    assert torch.equal(epoch(3, 0), whole[:9])  # the tenth is alone in its batch
    assert torch.equal(epoch(5, 0, (1, 2)), whole[1::2])
    assert not torch.equal(epoch(10, 1), whole)
    plain = torch.cat([batch.inputs[0] for batch in data.batches("train", 10, seed=5, limit=10)])
    assert not torch.equal(plain, whole)


def test_val_is_never_augmented() -> None:
    data = source()
    plain, asked = (next(data.batches("val", 5, seed=1, augment=flag)).inputs[0] for flag in (False, True))
    assert torch.equal(plain, asked)


def test_no_augmentation_without_padding() -> None:
    data = source(shift_pad=0)
    plain, asked = (next(data.batches("train", 5, seed=1, augment=flag)).inputs[0] for flag in (False, True))
    assert torch.equal(plain, asked)


def test_shift_and_flip_against_a_loop() -> None:
    x = images(40, 6).inputs
    draws = torch.rand((40, 3), generator=torch.Generator().manual_seed(0))
    out = flip(shift(x, draws[:, :2], 2), draws[:, 2])
    for i in range(40):
        padded = torch.zeros(3, 10, 10, dtype=torch.uint8)
        padded[:, 2:8, 2:8] = x[i]
        down, right = int(draws[i, 0] * 5), int(draws[i, 1] * 5)
        expected = padded[:, down : down + 6, right : right + 6]
        expected = expected.flip(2) if draws[i, 2] < 0.5 else expected
        assert torch.equal(out[i], expected)
    shifts = (draws[:, :2] * 5).long()
    assert shifts.min() == 0 and shifts.max() == 4


@pytest.mark.parametrize("resident_bytes", [0, 1 << 30])
def test_batches_arrive_on_the_device(monkeypatch: pytest.MonkeyPatch, resident_bytes: int) -> None:
    # The meta device refuses what a real accelerator refuses: operands on two devices.
    monkeypatch.setattr("compressor.data.arrays._RESIDENT_BYTES", resident_bytes)
    batches = list(source().batches("train", 4, seed=1, augment=True, device="meta"))
    assert [tuple(batch.inputs[0].shape) for batch in batches] == [(4, 3, 8, 8), (4, 3, 8, 8), (3, 3, 8, 8)]
    assert all(tensor.is_meta for batch in batches for tensor in (*batch.inputs, batch.target))


@pytest.mark.gpu
def test_a_gpu_makes_the_same_batches() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    there, here = (source().batches("train", 4, seed=1, augment=True, device=d) for d in ("cuda", "cpu"))
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine.target, theirs.target.cpu())
        torch.testing.assert_close(mine.inputs[0], theirs.inputs[0].cpu(), rtol=0, atol=1e-6)


def test_counts_and_shapes() -> None:
    data = source()
    assert (data.n_train, data.n_val, data.input_shapes) == (11, 5, ((3, 8, 8),))


def test_parts_that_do_not_fit_are_refused() -> None:
    good = images(4)
    with pytest.raises(DataError, match="train has 4 inputs but 3 targets"):
        ArraySource("x", Arrays(good.inputs, good.target[:3]), good, None)
    with pytest.raises(DataError, match="val is empty"):
        ArraySource("x", good, Arrays(good.inputs[:0], good.target[:0]), None)
    with pytest.raises(DataError, match="one model cannot take both"):
        ArraySource("x", good, images(4, 9), None)
