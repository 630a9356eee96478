"""Batch norms folded into the convolution or linear layer in front of them; it must never export or compare anything.

In evaluation a batch norm is y = (x − mean)·s + bias with s = weight / sqrt(var + eps), so W ← s·W and
b ← (b − mean)·s + bias compute the same. The numbers are made in float64 and stored in the type of the weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from compressor.program import (
    Program,
    ProgramModule,
    TensorShape,
    arguments,
    free_name,
    layer_name,
    of_same_kind,
    set_argument,
)

aten = torch.ops.aten

_FILTER_DIM: Mapping[Any, int] = {
    aten.conv1d.default: 0, aten.conv2d.default: 0, aten.conv3d.default: 0,
    aten.conv1d.padding: 0, aten.conv2d.padding: 0, aten.conv3d.padding: 0,
    aten.linear.default: 0,
    aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 1, aten.conv_transpose3d.input: 1,
}  # fmt: skip


@dataclass(frozen=True)
class FoldedNorms:
    """The program with folded norms, how many, and why the others stay: one line each."""

    program: Program
    n_folded: int
    skipped: tuple[str, ...]


@torch.no_grad()
def fold_norms(program: Program) -> FoldedNorms:
    """A program that computes in evaluation what `program` does; layers that are shared or read elsewhere stay."""
    graph, tensors = copy.deepcopy(program.module.graph), dict(program.module.tensors())
    n_folded, skipped = 0, []
    for node in [node for node in graph.nodes if node.target is aten.batch_norm.default]:
        reason = _why_not(node, program)
        if reason is not None:
            skipped.append(f"{_name(node)}: {reason}")
            continue
        _fold(node, tensors)
        n_folded += 1
    named = {node.target for node in graph.nodes if node.op == "get_attr"}
    module = ProgramModule({name: tensor for name, tensor in tensors.items() if name in named}, graph)
    module.training = program.module.training
    return FoldedNorms(program.replace(module=module, masks={}), n_folded, tuple(skipped))


def _name(node: Node) -> str:
    bound = arguments(node)
    return _owner(bound) if isinstance(bound["running_mean"], Node) else node.name


def _owner(bound: Mapping[str, Any]) -> str:
    return layer_name(str(bound["running_mean"].target))


def _why_not(norm: Node, program: Program) -> str | None:
    bound = arguments(norm)
    layer = bound["input"]
    if bound["running_mean"] is None:
        return "it normalises with the statistics of the batch"
    if any(isinstance(bound[n], Node) and bound[n].op != "get_attr" for n in ("weight", "bias", "running_mean")):
        return "its parameters are computed"
    if layer.target not in _FILTER_DIM:
        return "it is not behind a convolution or a linear layer"
    shape = program.shapes[layer.name]
    if layer.target is aten.linear.default and isinstance(shape, TensorShape) and len(shape.sizes) != 2:
        return "it normalises another dimension than the layer's features"
    if len(layer.users) > 1:
        return f"{layer.name} is read elsewhere, too"
    weight = arguments(layer)["weight"]
    if weight.op != "get_attr" or _n_readers(weight) > 1:
        return f"the weight of {layer.name} is shared or computed"
    if _FILTER_DIM[layer.target] == 1 and arguments(layer)["groups"] > 1:
        return "it is behind a transposed convolution with groups"
    return None


def _n_readers(tensor: Node) -> int:
    same = (node for node in tensor.graph.nodes if node.op == "get_attr" and node.target == tensor.target)
    return sum(len(node.users) for node in same)


def _fold(norm: Node, tensors: dict[str, Tensor]) -> None:
    """Put the norm into the layer before it, in the graph and among the tensors."""
    bound = arguments(norm)
    layer = bound["input"]
    given = arguments(layer)

    mean = tensors[str(bound["running_mean"].target)].double()

    def value(node: Node | None, default: float) -> Tensor:
        return torch.full_like(mean, default) if node is None else tensors[str(node.target)].double()

    scale = value(bound["weight"], 1.0) * torch.rsqrt(value(bound["running_var"], 1.0) + bound["eps"])
    shift = (value(given["bias"], 0.0) - mean) * scale + value(bound["bias"], 0.0)
    name = str(given["weight"].target)
    weight, dim = tensors[name], _FILTER_DIM[layer.target]
    at = [-1 if d == dim else 1 for d in range(weight.dim())]
    tensors[name] = of_same_kind((weight.double() * scale.reshape(at)).to(weight.dtype), weight)
    own = given["bias"] if given["bias"] is not None and _n_readers(given["bias"]) == 1 else None
    bias = free_name(f"{layer_name(name)}.bias", (n for n in tensors if own is None or n != own.target))
    tensors[bias] = of_same_kind(shift.to(weight.dtype), weight)
    with layer.graph.inserting_before(layer):
        made = layer.graph.get_attr(bias)
    made.meta = {"where": layer.meta.get("where", "")}
    set_argument(layer, "bias", made)
    norm.replace_all_uses_with(layer)
    layer.graph.erase_node(norm)
    counter = f"{_owner(bound)}.num_batches_tracked"
    old = [n for n in (*bound.values(), given["bias"]) if isinstance(n, Node)]
    for node in (*old, *(n for n in layer.graph.nodes if n.op == "get_attr" and n.target == counter)):
        if not node.users and node.op == "get_attr":
            layer.graph.erase_node(node)
