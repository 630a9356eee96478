"""Whole layers as residual blocks, where a configuration is to say how many are left of a network.

A configuration has one number for all layers and gives each what it gives its neighbours, so attention and MLP of a
layer go together, all weights of it with them, and what is left is numbered anew. It must never know an architecture by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compressor.axes import Block, find_blocks, needed_without
from compressor.errors import CompressError, PatternError, UsageError
from compressor.models.depths import Depth
from compressor.models.hf_directory import answers, depths_of, fill_network
from compressor.models.widths import name_of
from compressor.program import Program, ProgramModule

_ALIKE = 1e-3
"""Share of the largest output that the trial may be off, in float32."""


def whole_layers(program: Program, note: Callable[[str], None] = lambda said: None) -> tuple[Block, ...]:
    """The layers that may go so that a configuration can say what is left; `note` gets which stay, and why.

    Raises:  UsageError if the program does not come from a directory of transformers; PatternError naming what stays
             and why, if none may go.
    """
    if not program.record.configuration:
        raise UsageError(
            "--uniform: is for networks of transformers, which have a configuration; load one from its directory"
        )
    residual = find_blocks(program).free
    found = [_Stack(program, depth, residual) for depth in depths_of(program.record.configuration)]
    reasons = [reason for stack in found for reason in stack.reasons]
    for reason in reasons:
        note(f"--uniform: stay of {reason}")
    blocks = tuple(block for stack in found for block in stack.free)
    if not blocks:
        why = "; ".join(reasons) or "no entry of it counts layers that can be one less"
        raise PatternError(f"--pattern layer --uniform: no layer may go that a configuration can leave out: {why}")
    return blocks


@dataclass(frozen=True)
class _Layer:
    number: int
    block: Block


class _Stack:
    """The layers that one entry counts: those that may go, and the reasons of those that stay."""

    def __init__(self, program: Program, depth: Depth, blocks: Sequence[Block]) -> None:
        self._program, self._depth, self._blocks = program, depth, blocks
        self._stay: dict[str, list[int]] = {}
        whole = [layer for number in range(depth.n) if (layer := self._layer(number)) is not None]
        first = self._first_that_may_go(whole)
        for layer in whole[:first]:
            self._keep(layer.number, "the library's network without it computes otherwise: its layers differ by place")
        self.free = tuple(layer.block for layer in whole[first:])

    @property
    def reasons(self) -> tuple[str, ...]:
        """For each reason the layers that stay for it."""
        return tuple(
            f"{self.name}: {'layer' if len(numbers) == 1 else 'layers'} {', '.join(map(str, numbers))}: {why}"
            for why, numbers in self._stay.items()
        )

    def _keep(self, number: int, why: str) -> None:
        self._stay.setdefault(why, []).append(number)

    @property
    def name(self) -> str:
        return name_of(self._depth.key)

    def _layer(self, number: int) -> _Layer | None:
        """All residual blocks of a layer as one; None, and why, if some weights of it are needed without them."""
        places = self._inside(number)
        parts = [block for block in self._blocks if all(name.startswith(places) for name in block.layers)]
        own = [name for name in self._program.parameters if name.startswith(places)]
        needed = needed_without(self._program, parts)
        left = next((name for name in own if name in needed), None)
        if left is not None or not parts:
            rest = (self._depth.place(left or "") or ("", 0, ""))[2]
            self._keep(number, f"{rest} works on what no residual goes around" if parts else "no residual block")
            return None
        return _Layer(
            number,
            Block(
                places[0].removesuffix("."),
                tuple(dict.fromkeys(branch for part in parts for branch in part.branches)),
                frozenset[str]().union(*(part.zeroed for part in parts)),
                tuple(dict.fromkeys(name for part in parts for name in part.layers)),
            ),
        )

    def _inside(self, number: int) -> tuple[str, ...]:
        return tuple(f"{stack}{number}." for stack in self._depth.stacks)

    def _first_that_may_go(self, layers: list[_Layer]) -> int:
        """The place in `layers` from which on each may go: without it, those behind it do what they did one place
        further back, which holds for all of them if it holds for those behind an earlier one."""
        low, high = 0, len(layers)
        if layers and self._answers_alike(layers[0]):
            return 0
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._answers_alike(layers[middle]) else (middle + 1, high)
        return low

    @torch.no_grad()
    def _answers_alike(self, layer: _Layer) -> bool:
        """Whether the library's network without a layer answers as the whole one with its residuals at 0."""
        program, kept = self._program, [i for i in range(self._depth.n) if i != layer.number]
        tensors = {name: tensor.detach().cpu() for name, tensor in program.module.tensors().items()}
        masked = {
            name: torch.zeros_like(tensor) if name in layer.block.zeroed else tensor for name, tensor in tensors.items()
        }
        inside = self._inside(layer.number)
        left = {
            self._depth.renamed(name, kept): tensor for name, tensor in tensors.items() if not name.startswith(inside)
        }
        aliases = {self._depth.renamed(a, kept): self._depth.renamed(b, kept) for a, b in program.aliases.items()}
        names, inputs = [spec.name for spec in program.inputs], program.example_inputs(2, seed=1)
        whole = ProgramModule(masked, program.module.graph).eval()(*inputs)
        try:
            network = fill_network(self._depth.without(program.record.configuration, kept), left, aliases, {})
            small = answers(network, names, inputs)
        except (CompressError, RuntimeError):  # torch's own for weights of another shape
            return False
        return _alike([leaf for leaf in tree_leaves(whole) if isinstance(leaf, Tensor)], small)


def _alike(whole: Sequence[Tensor], small: Sequence[Tensor]) -> bool:
    return len(whole) == len(small) and all(
        a.shape == b.shape and float((a - b).abs().max()) <= _ALIKE * max(float(a.abs().max()), 1e-30)
        for a, b in zip(whole, small, strict=True)
    )
