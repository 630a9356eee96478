"""What a tensor in a file must be, and its plain form for one; it must never change a value."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor

from compressor.errors import ModelError
from compressor.formats.names import shown
from compressor.program.element_types import ELEMENT_TYPES
from compressor.typed_torch import split

_PART = 1 << 20
"""Elements that are looked at together."""
_DTYPES = frozenset(kind.torch_dtype for kind in ELEMENT_TYPES)


def check_dense(name: str, tensor: Any) -> None:
    """Nothing, when it is an ordinary dense tensor that lies wholly in its own memory.

    Raises:  ModelError otherwise: sparse, quantised, of another class, or sizes without bytes.
    """
    if not isinstance(tensor, Tensor):
        raise ModelError(f"{shown(name, 60)}: is {type(tensor).__name__} where a tensor should be")
    ordinary = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    if not ordinary or tensor.dtype not in _DTYPES or tensor.device.type != "cpu" or tensor.is_neg():
        raise ModelError(
            f"{shown(name, 60)}: only ordinary dense tensors can be read, not {tensor.dtype} {tensor.layout}"
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(f"{shown(name, 60)}: declares {list(tensor.shape)} but has not that much data")


def check_finite(tensors: Mapping[str, Tensor], parameters: Container[str]) -> None:
    """Nothing, when no value is NaN and no parameter infinite; a buffer may be (masks of attention are).

    Raises:  ModelError naming the first tensor.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        # The sum is finite almost always when all are; by parts, because each is copied into float64 for it.
        parts = split(tensor.detach().reshape(-1), _PART)
        if all(bool(torch.isfinite(part.sum(dtype=torch.float64))) for part in parts):
            continue
        wrong = torch.isnan(tensor) if name not in parameters else ~torch.isfinite(tensor)
        if n_wrong := int(wrong.sum()):
            raise ModelError(
                f"{name}: {n_wrong:,} of {tensor.numel():,} values are NaN or infinite; "
                f"the training that made them diverged"
            )


def plain(tensor: Tensor) -> Tensor:
    """The values on the CPU, contiguous, with no storage behind them but their own."""
    found = tensor.detach().cpu().contiguous()
    owns = found.untyped_storage().nbytes() == found.numel() * found.element_size()
    return found if owns else found.clone()
