"""Costs of a program as it stands, counted by torch itself; it must never hold formulas of operators."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from compressor.program import Program, TensorShape
from compressor.units import Macs


def count_macs(program: Program) -> Macs:
    """Multiply-adds of one sample.

    Source:  torch.utils.flop_counter on fake tensors, halved (it counts a multiply-add as 2; on real CPU tensors it
             would count attention as 0).
    """
    tensors = program.module.tensors()
    counter = FlopCounterMode(display=False)
    batch = 1
    with torch.no_grad(), FakeTensorMode() as mode:
        fake: dict[str, torch.Tensor] = {
            name: mode.from_tensor(tensor, static_shapes=True) for name, tensor in tensors.items()
        }
        inputs = tuple(torch.empty(spec.concrete(batch), dtype=spec.torch_dtype) for spec in program.inputs)
        with counter:
            torch.func.functional_call(program.module, fake, inputs)
    return Macs(counter.get_total_flops() // 2)


def count_activations(program: Program) -> int:
    """Elements that all operators together write for one sample (views counted as if they wrote)."""
    total = 0
    for node in program.module.graph.nodes:
        shape = program.shapes.get(node.name)
        if node.op == "call_function" and isinstance(shape, TensorShape):
            total += shape.numel
    return total // program.sampled_batch
