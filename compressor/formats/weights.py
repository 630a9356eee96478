"""Weights of a file for a network that is known already: trained elsewhere, taken over whole.

It must never take over a part. A file may hold more than the network reads (auxiliary heads, optimizers beside the
weights), never less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.formats.archive import open_archive, open_safetensors
from compressor.formats.checkpoint import is_checkpoint, read_checkpoint
from compressor.formats.detect import Kind, detect
from compressor.formats.load import chosen_weights, opened_file
from compressor.formats.names import shown
from compressor.formats.state_dict import fill_gaps, find_state_dict, fitted_names, of_other_shape
from compressor.formats.tensors import check_dense, check_finite
from compressor.program import Program

_SHOWN = 3


@dataclass(frozen=True)
class Taken:
    """What came over: tensors, names that the network does not read, and cut weights that were not 0 (now they are)."""

    n_tensors: int
    unread: tuple[str, ...]
    n_revived: int
    largest_revived: float


def read_weights(path: str | Path, *, key: str | None = None, trust_pickle: bool = False) -> dict[str, Tensor]:
    """Tensors by name out of a state dict, a training script's checkpoint, or a checkpoint of ours.

    Raises:  ModelError if there are none; UnsafeFileError if opening the file could run code.
    """
    with opened_file(path) as opened:
        kind = detect(opened.file, opened.name)
        if kind is Kind.SAFETENSORS:
            return dict(open_safetensors(opened.file, opened.name))
        if kind is not Kind.TORCH:
            raise ModelError(f"{opened.name}: is {kind.value}; give the state dict of the trained network")
        content = open_archive(opened.file, opened.name, trust_pickle=trust_pickle)
        if is_checkpoint(content):
            return dict(read_checkpoint(content, opened.name, opened.folder).module.tensors())
        content = chosen_weights(content, opened.name, key)
        if isinstance(content, nn.Module):
            return dict(content.state_dict())
        state, _ = find_state_dict(content)
        if state is None:
            raise ModelError(f"{opened.name}: holds no weights by name; save model.state_dict() and give that file")
        return state


@torch.no_grad()
def take_weights(program: Program, state: Mapping[str, Tensor], name: str) -> tuple[Program, Taken]:
    """A copy of the program with these weights, its masks enforced, and what there is to say about them.

    Raises:  ModelError naming what is missing or of another shape.
    """
    for key, tensor in state.items():
        check_dense(f"{name}: {shown(key)}", tensor)
    taken = program.clone()
    own = taken.module.tensors()
    given = fitted_names(state, {**own, **{alias: own[real] for alias, real in program.aliases.items() if real in own}})
    # A capture keeps constants as tensors of its own names; no training knows them, and none changes them.
    trained = {key: tensor for key, tensor in own.items() if key in given or isinstance(tensor, nn.Parameter)}
    fill_gaps(given, trained)
    missing = [key for key in trained if key not in given]
    if missing:
        raise ModelError(
            f"{name}: lacks {len(missing)} tensors of the network: {_some(missing)}; is it of this network?"
        )
    if other := of_other_shape(given, trained):
        raise ModelError(
            f"{name}: {_some(other)}: of another shape than in the network; it must not be compacted before"
        )
    check_finite(given, dict(taken.parameters))
    for key, tensor in trained.items():
        tensor.data.copy_(given[key])
    revived = [taken.parameters[key].masked_select(~mask) for key, mask in program.masks.items()]
    lost = torch.cat([*revived, torch.zeros(0)]) if revived else torch.zeros(0)
    for key, mask in program.masks.items():
        taken.parameters[key].masked_fill_(~mask, 0.0)
    unread = tuple(key for key in given if key not in own and key not in program.aliases)
    largest = float(lost.abs().max()) if lost.numel() else 0.0
    return taken, Taken(len(trained), unread, int((lost != 0).sum()), largest)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (" …" if len(keys) > _SHOWN else "")
