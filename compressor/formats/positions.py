"""Masks of whole units in a checkpoint: which positions stay along each dimension; it must never hold what is cut by
single weights.

A mask of a large matrix takes half of what the matrix takes in bfloat16, and says a few thousand things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compressor.errors import ModelError
from compressor.formats.names import shown
from compressor.formats.tensors import check_dense, plain
from compressor.narrowing import is_dict
from compressor.program.masks import Positions, UnitMasks

Stored = dict[str, dict[str, Tensor]]
"""Positions that stay, by name of the tensor and dimension."""


def stored_positions(masks: Mapping[str, Tensor]) -> Stored:
    """Of masks those that are held as positions."""
    found = masks.positions if isinstance(masks, UnitMasks) else {}
    return {name: {str(dim): plain(along) for dim, along in sorted(kept.kept.items())} for name, kept in found.items()}


def flat_positions(positions: Stored) -> dict[str, Tensor]:
    """The same by one name each, for the digest."""
    return {f"{name} along {dim}": along for name, kept in positions.items() for dim, along in kept.items()}


def read_positions(content: Any, tensors: Mapping[str, Tensor]) -> Stored:
    """Positions as a file has them.

    Raises:  ModelError unless they are for dimensions of its tensors, a truth value for each index.
    """
    if not is_dict(content):
        raise ModelError("its kept positions are no dictionary; the file is damaged")
    found: Stored = {}
    for name, kept in content.items():
        if not isinstance(name, str) or name not in tensors or not is_dict(kept) or not kept:
            raise ModelError(f"kept positions are for {shown(name, 60)}, which is no tensor; the file is damaged")
        shape = tensors[name].shape
        for dim, along in kept.items():
            known = isinstance(dim, str) and dim.isascii() and dim.isdecimal() and int(dim) < len(shape)
            check_dense(name, along)
            if not known or along.dtype is not torch.bool or tuple(along.shape) != (shape[int(dim)],):
                raise ModelError(f"kept positions of {shown(name, 60)} do not fit {list(shape)}; the file is damaged")
        found[name] = dict(kept)
    return found


def with_positions(
    dense: Mapping[str, Tensor], positions: Stored, parameters: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """All masks of a file.

    Raises:  ModelError for positions of what is no parameter, or of one that has a mask too.
    """
    if not positions:
        return dense
    for name in positions:
        if name not in parameters or name in dense:
            raise ModelError(f"kept positions are for {shown(name, 60)}, which has a mask too or is no parameter")
    made = {
        name: Positions(tuple(parameters[name].shape), {int(dim): along for dim, along in kept.items()})
        for name, kept in positions.items()
    }
    return UnitMasks(made, dense)
