"""A data set held as two pairs of tensors, batched by gathering and normalised on the device.

It must never hold the reader of a file format: readers only make the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.data.digests import digest_of
from compressor.data.passes import NumberedSource, Pass
from compressor.data.source import Batch
from compressor.errors import DataError

# A split up to this size is moved to the accelerator whole, at the start of an epoch: one copy instead of one
# per step. Above it, batches are gathered on the host.
_RESIDENT_BYTES = 1 << 30


class Normalisation(NamedTuple):
    """Per-channel mean and standard deviation of inputs that lie in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of torchvision's ImageNet models, and of the CIFAR-10 ResNets that were trained with them."""


class Arrays(NamedTuple):
    """One split. Shapes: inputs (N, ...), target (N,) or (N, ...), None where there are no labels."""

    inputs: Tensor
    target: Tensor | None


@dataclass(frozen=True, eq=False)
class ArraySource(NumberedSource):
    """A DataSource over tensors; uint8 inputs stay uint8 in memory and become [0, 1] per batch.

    `shift_pad` > 0 turns on the augmentation that CIFAR nets are trained with: pad by that many black pixels,
    crop at random, and with `flip` mirror left-right at random. Sources with 0 and no flip ignore `augment`.
    """

    ref: str
    train: Arrays
    val: Arrays
    n_classes: int | None
    normalisation: Normalisation | None = None
    shift_pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, part in (("train", self.train), ("val", self.val)):
            if part.target is not None and len(part.inputs) != len(part.target):
                raise DataError(f"{self.ref}: {name} has {len(part.inputs)} inputs but {len(part.target)} targets")
            if len(part.inputs) == 0:
                raise DataError(f"{self.ref}: {name} is empty")
        if self.train.inputs.shape[1:] != self.val.inputs.shape[1:]:
            raise DataError(
                f"{self.ref}: train samples are {tuple(self.train.inputs.shape[1:])}, "
                f"val samples {tuple(self.val.inputs.shape[1:])}; one model cannot take both"
            )

    @property
    def preprocessing(self) -> dict[str, Any]:
        """From what the file holds to what the model reads; empty where nothing is done."""
        scale = {"scale": 1 / 255} if self.train.inputs.dtype == torch.uint8 else {}
        if self.normalisation is None:
            return scale
        return {**scale, "mean": list(self.normalisation.mean), "std": list(self.normalisation.std)}

    @property
    def labelled(self) -> bool:
        return self.train.target is not None and self.val.target is not None

    @property
    def augments(self) -> bool:
        """Whether `augment` changes anything."""
        return self.shift_pad > 0 or self.flip

    @property
    def n_train(self) -> int:
        return len(self.train.inputs)

    @property
    def n_val(self) -> int:
        return len(self.val.inputs)

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(self.train.inputs.shape[1:]),)

    def content_digest(self) -> str:
        """See `identity.identity_of_data`."""
        how = (self.n_classes, self.normalisation, self.shift_pad, self.flip)
        return digest_of(*self.train, *self.val, how)

    def fetched(self, asked: Pass) -> Iterator[Batch]:
        part, device = self.train if asked.split == "train" else self.val, asked.device
        inputs = part.inputs[: asked.limit]
        target = part.target[: asked.limit].to(device) if self.labelled and part.target is not None else None
        if inputs.nbytes <= _RESIDENT_BYTES:
            inputs = inputs.to(device)
        sample_N = asked.order.sample_N.to(inputs.device)
        draws_N3 = None if asked.draws_N3 is None else asked.draws_N3.to(device)
        for part_slice in asked.slices:
            picked = sample_N[part_slice]
            x = inputs.index_select(0, picked).to(device)
            if draws_N3 is not None:
                x = shift(x, draws_N3[part_slice, :2], self.shift_pad) if self.shift_pad else x
                x = flip(x, draws_N3[part_slice, 2]) if self.flip else x
            own = None if target is None else target.index_select(0, picked.to(device))
            yield Batch((normalise(x, self.normalisation),), own)


def shift(x_NCHW: Tensor, draws_N2: Tensor, pad: int) -> Tensor:
    """Every image moved by up to `pad` pixels over black, as its own draws say.

    Shapes:  x_NCHW (N, C, H, W), draws_N2 (N, 2) in [0, 1), down and right -> (N, C, H, W)
    """
    height, width = x_NCHW.shape[2:]
    windows = F.pad(x_NCHW, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    down_N, right_N = (draws_N2 * (2 * pad + 1)).long().unbind(1)
    sample_N = torch.arange(len(x_NCHW), device=x_NCHW.device)
    return windows[sample_N, :, down_N, right_N]


def flip(x_NCHW: Tensor, draws_N: Tensor) -> Tensor:
    """Images whose draw is under a half, mirrored left-right. Shapes: x_NCHW (N, C, H, W), draws_N (N,) in [0, 1)"""
    return torch.where((draws_N < 0.5)[:, None, None, None], x_NCHW.flip(3), x_NCHW)


def normalise(x: Tensor, normalisation: Normalisation | None) -> Tensor:
    """Inputs as the model reads them: uint8 divided by 255, then (x - mean) / std along dimension 1.

    Shapes:  x (N, C, ...) -> the same
    """
    if x.dtype == torch.uint8:
        x = x.to(torch.float32).div_(255)
    if normalisation is None:
        return x
    shape = (1, -1, *([1] * (x.dim() - 2)))
    # Made there, each would wait until the device has done all that it was given: twice a step.
    mean, std = (
        torch.tensor(values, dtype=x.dtype).view(shape).to(x.device, non_blocking=True)
        for values in (normalisation.mean, normalisation.std)
    )
    return (x - mean).div_(std)
