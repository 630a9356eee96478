"""Residual blocks that masks cut: which, and the program without them; it must never choose any."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from compressor.axes import Block, find_blocks, without_blocks
from compressor.program import Program


def is_cut(block: Block, masks: Mapping[str, Tensor]) -> bool:
    """Whether masks cut all that makes the block 0."""
    return all(name in masks and not bool(masks[name].any()) for name in block.zeroed)


def cut_blocks(program: Program) -> tuple[Block, ...]:
    """The blocks that the program's masks cut."""
    if all(bool(mask.any()) for mask in program.masks.values()):
        return ()
    return tuple(block for block in find_blocks(program).free if is_cut(block, program.masks))


def without_cut_blocks(program: Program) -> Program:
    """The program without the blocks that its masks cut: itself, if there are none."""
    found = cut_blocks(program)
    return without_blocks(program, found) if found else program
