"""A program as the exporters take it: on the CPU, and in a type that the runtime has; it must never export."""

from __future__ import annotations

import copy

import torch

from compressor.program import Program, ProgramModule, of_same_kind, widened
from compressor.program.precision import writes_in_place


def host_module(program: Program) -> ProgramModule:
    """The program's module on the CPU, in evaluation mode, with a graph of its own that may be edited.

    Tensors are the program's own where they lie on the CPU and the graph writes into none.
    """
    module = program.module
    if writes_in_place(module.graph):
        return module.clone().to("cpu").eval()
    tensors = {name: of_same_kind(tensor.detach().cpu(), tensor) for name, tensor in module.tensors().items()}
    return ProgramModule(tensors, copy.deepcopy(module.graph)).eval()


def in_runtime_type(program: Program) -> tuple[Program, tuple[str, ...]]:
    """The program in a type that onnxruntime computes in on the CPU, and what there is to say about that."""
    if all(parameter.dtype != torch.bfloat16 for parameter in program.module.parameters()):
        return program, ()
    told = "the weights are bfloat16 and the file holds float32: onnxruntime has no CPU kernels for bfloat16"
    return widened(program), (told,)
