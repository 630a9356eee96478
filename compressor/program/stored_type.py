"""Networks whose weights are stored in half precision: what type is kept, and how one is trained that keeps it.

Training wants float32, where small steps are not lost; what is stored keeps its type. It must never decide what is
trained.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from compressor.program.module import ProgramModule, of_same_kind
from compressor.program.precision import recast
from compressor.program.program import Program

HALVES = frozenset({torch.float16, torch.bfloat16})
"""Types of two bytes, which weights are stored in and small steps of training are lost in."""

aten = torch.ops.aten


def half_type(tensors: Iterable[Tensor]) -> torch.dtype | None:
    """The half precision that all floating tensors are in; None where there are others, or none."""
    found = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return next(iter(found)) if len(found) == 1 and found <= HALVES else None


def has_halves(program: Program) -> bool:
    """Whether any parameter is stored in half precision."""
    return any(parameter.dtype in HALVES for parameter in program.module.parameters())


def widened(program: Program) -> Program:
    """The program in float32 where it was in half precision, to be trained; itself where it was not."""
    if not has_halves(program):
        return program
    graph = copy.deepcopy(program.module.graph)
    recast(graph, torch.float32, HALVES)
    tensors = {name: _in_float32(tensor) for name, tensor in program.module.tensors().items()}
    module = ProgramModule(tensors, graph)
    module.training = program.module.training
    inputs = tuple(replace(s, dtype="float32") if s.torch_dtype in HALVES else s for s in program.inputs)
    return program.replace(module=module, inputs=inputs)


def narrowed(program: Program, stored: Program) -> Program:
    """A program that was `widened`, with everything rounded to the types that `stored` has under the same names."""
    graph = copy.deepcopy(program.module.graph)
    nodes = {node.name: node for node in graph.nodes}
    for node in stored.module.graph.nodes:
        if node.name in nodes and not HALVES.isdisjoint(filter(_is_type, tree_leaves((node.args, node.kwargs)))):
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: nodes[n.name])
            nodes[node.name].args, nodes[node.name].kwargs = args, kwargs
    types = {name: tensor.dtype for name, tensor in stored.module.tensors().items()}
    tensors = {
        name: of_same_kind(tensor.detach().to(types.get(name, tensor.dtype)), tensor)
        for name, tensor in program.module.tensors().items()
    }
    module = ProgramModule(tensors, graph)
    module.training = program.module.training
    return program.replace(module=module, inputs=stored.inputs)


def taking_float32(program: Program) -> Program:
    """The program with float32 inputs where it took half precision: data sets have them, and the first operator casts.

    What it computes stays the same.
    """
    if all(spec.torch_dtype not in HALVES for spec in program.inputs):
        return program
    graph = copy.deepcopy(program.module.graph)
    specs = {spec.name: spec for spec in program.inputs}
    for node in [node for node in graph.nodes if node.op == "placeholder"]:
        spec = specs.get(node.name)
        if spec is None or spec.torch_dtype not in HALVES:
            continue
        with graph.inserting_after(node):
            cast = graph.call_function(aten.to.dtype, (node, spec.torch_dtype))
        cast.meta = {"where": node.meta.get("where", "")}
        node.replace_all_uses_with(cast)
        cast.args = (node, spec.torch_dtype)
    module = ProgramModule(program.module.tensors(), graph)
    module.training = program.module.training
    inputs = tuple(replace(s, dtype="float32") if s.torch_dtype in HALVES else s for s in program.inputs)
    return program.replace(module=module, inputs=inputs)


def _in_float32(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.dtype in HALVES else tensor.dtype
    return of_same_kind(tensor.detach().to(dtype=dtype, copy=True), tensor)


def _is_type(part: object) -> bool:
    return isinstance(part, torch.dtype)
