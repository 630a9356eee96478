"""The inputs at which an imported program is compared with its file; it must never run either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from compressor.program import Program, find_layers
from compressor.program.interface import Interface
from compressor.program.layers import CONTRACTIONS
from compressor.program.shapes import TensorShape
from compressor.program.tables import table_rows

_CHEAP, _FEW, _ONE = (1, 2, 3, 5, 8), (1, 3), (2,)
_PARTS, _FEW_PARTS = (1, 2, 3), (1, 2)
_MOST_MACS: Mapping[tuple[int, ...], float] = {_CHEAP: 2**33, _FEW: 2**36, _PARTS: 2**36}
"""Batches, or numbers of parts where the file takes but one batch, and the multiply-adds that all of them together may
take in each of the two runtimes: a second, or some. An expensive network has to do with fewer: what depends on the
batch was already measured at four of them, without data."""

_LARGEST_VALUE = 2**29
"""Elements of the largest value at one batch: a forged file must not fill the memory."""


def batches(program: Program, opened: int | None) -> tuple[int, ...]:
    """The batch sizes to compare at; none for a network whose values are huge.

    `opened` is the batch that the file fixes where the program does not: they are multiples of it.
    """
    if not program.has_dynamic_batch:
        wanted: tuple[int, ...] = (program.sampled_batch,)
    elif opened is not None:
        parts = _PARTS if _is_affordable(program, _PARTS, opened) else _FEW_PARTS
        wanted = tuple(opened * n for n in parts)
    else:
        wanted = next((sizes for sizes in (_CHEAP, _FEW) if _is_affordable(program, sizes)), _ONE)
    largest = max((shape.numel for shape in program.shapes.values() if isinstance(shape, TensorShape)), default=1)
    return tuple(batch for batch in wanted if batch * largest <= _LARGEST_VALUE * program.sampled_batch)


def further_inputs(program: Program, agreed: Sequence[int], *, positive: bool) -> Iterator[tuple[Tensor, ...]]:
    """Inputs beside the random ones, of a batch that agreed: coarse ones, and if asked for positive ones.

    A logarithm of random numbers is NaN in half of them, and what follows it was not compared.
    """
    if not agreed or tuple(agreed) == _ONE:
        return
    batch = agreed[len(agreed) // 2] if _is_affordable(program, _CHEAP) else agreed[0]
    yield _coarse_inputs(program, batch)
    if positive:
        inputs = program.example_inputs(batch, seed=batch)
        yield tuple(x.abs() if x.is_floating_point() else x for x in inputs)


def grown_inputs(program: Program, interface: Interface, batch: int) -> Iterator[tuple[Tensor, ...]]:
    """Inputs with other open sizes than the program was imported with; none of a network that is too expensive."""
    seen = {program.inputs}
    for last in (True, False):
        specs = interface.grown(program.inputs, last)
        if specs not in seen and _is_affordable(program, _PARTS):
            seen.add(specs)
            yield program.replace(inputs=specs).example_inputs(batch, seed=batch)


def _coarse_inputs(program: Program, batch: int) -> tuple[Tensor, ...]:
    """Inputs with many equal and many negative numbers: ties, halves to round, quotients to cut. Ids stay in tables."""
    generator = torch.Generator().manual_seed(batch)
    rows = table_rows(program.module.graph, program.shapes)
    placeholders = (node.name for node in program.module.graph.nodes if node.op == "placeholder")
    examples: list[Tensor] = []
    for spec, x, name in zip(program.inputs, program.example_inputs(batch, seed=batch), placeholders, strict=True):
        if x.is_floating_point():
            examples.append((x * 2).round() / 2)
        elif spec.high is not None or name in rows or x.dtype == torch.bool:
            examples.append(x)
        else:
            low, high = (0, 256) if x.dtype == torch.uint8 else (-9, 10)
            examples.append(torch.randint(low, high, x.shape, generator=generator).to(x.dtype))
    return tuple(examples)


def _is_affordable(program: Program, sizes: tuple[int, ...], times: int = 1) -> bool:
    return times * sum(sizes) * _macs_per_sample(program) <= _MOST_MACS[sizes]


def _macs_per_sample(program: Program) -> float:
    """Roughly: what weights are multiplied with."""
    tensors, total = program.module.tensors(), 0
    for layer in find_layers(program):
        shape = program.shapes.get(layer.node)
        if layer.kind in CONTRACTIONS and isinstance(shape, TensorShape):
            weight = tensors[layer.weight]
            total += shape.numel * weight.numel() // max(weight.shape[0], 1)
    return total / program.sampled_batch
