"""The layers of a program: operators that own weights, under the names their parameters have.

It must never hold costs or labels; it only says which tensor plays which part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from compressor.program.arguments import arguments
from compressor.program.program import Program

aten = torch.ops.aten


@dataclass(frozen=True)
class Layer:
    """One operator with weights. `out_dim` and `in_dim` are the weight's filter and channel dimensions.

    `tensors` names every parameter and buffer it reads, the weight first; a shared weight makes several layers.
    """

    name: str
    kind: str
    node: str
    weight: str
    tensors: tuple[str, ...]
    out_dim: int
    in_dim: int | None


_KINDS: dict[Any, tuple[str, str, int, int | None]] = {
    aten.conv1d.default: ("conv1d", "weight", 0, 1),
    aten.conv2d.default: ("conv2d", "weight", 0, 1),
    aten.conv3d.default: ("conv3d", "weight", 0, 1),
    aten.conv1d.padding: ("conv1d", "weight", 0, 1),
    aten.conv2d.padding: ("conv2d", "weight", 0, 1),
    aten.conv3d.padding: ("conv3d", "weight", 0, 1),
    aten.conv_transpose1d.default: ("conv_transpose1d", "weight", 1, 0),
    aten.conv_transpose2d.input: ("conv_transpose2d", "weight", 1, 0),
    aten.conv_transpose3d.input: ("conv_transpose3d", "weight", 1, 0),
    aten.linear.default: ("linear", "weight", 0, 1),
    aten.embedding.default: ("embedding", "weight", 1, 0),
    aten.batch_norm.default: ("batch_norm", "weight", 0, None),
    aten.instance_norm.default: ("instance_norm", "weight", 0, None),
    aten.layer_norm.default: ("layer_norm", "weight", 0, None),
    aten.rms_norm.default: ("rms_norm", "weight", 0, None),
    aten.group_norm.default: ("group_norm", "weight", 0, None),
}

CONTRACTIONS = frozenset(
    {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"}
)
"""Kinds whose weights are multiplied and summed: what filter and unstructured patterns apply to."""

GEMM_KINDS = frozenset({"conv2d", "linear"})
"""Kinds that can run as a product over some of their columns only, so that a cut column saves work and weights."""


def why_columns_stay(layer: Layer, layers: Sequence[Layer]) -> str | None:
    """Why no column of this layer can be left out of a compact network, None where it can.

    The one answer for what a pattern may cut and for what compaction leaves out: what is counted is what is saved.
    """
    if sum(other.weight == layer.weight for other in layers) > 1:
        return "its weight is shared between several operators"
    if layer.kind not in GEMM_KINDS:
        return f"only two-dimensional convolutions and linear layers are lowered, this is a {layer.kind}"
    return None


def find_layers(program: Program) -> tuple[Layer, ...]:
    """Every layer in graph order; a parameter that only arithmetic reads is a layer of kind `parameter`."""
    layers: list[Layer] = []
    owned: set[str] = set()
    for node in program.module.graph.nodes:
        found = _layer(node) if node.op == "call_function" else None
        if found is not None:
            layers.append(found)
            owned.update(found.tensors)
    for name in program.parameters:
        if name not in owned:
            layers.append(Layer(name, "parameter", _node_of(program, name), name, (name,), 0, None))
    return tuple(layers)


def _layer(node: Node) -> Layer | None:
    if node.target not in _KINDS:
        return None
    kind, weight_name, out_dim, in_dim = _KINDS[node.target]
    bound = arguments(node)
    read = {name: v for name, v in bound.items() if isinstance(v, Node) and v.op == "get_attr"}
    weight = read.get(weight_name)
    if weight is None:
        return None
    others = [str(v.target) for name, v in read.items() if name != weight_name]
    return Layer(
        layer_name(str(weight.target)),
        kind,
        node.name,
        str(weight.target),
        (str(weight.target), *others),
        out_dim,
        in_dim,
    )


def layer_name(tensor: str) -> str:
    """`layer1.0.conv1.weight` -> `layer1.0.conv1`; a bare parameter keeps its name."""
    owner, _, last = tensor.rpartition(".")
    return owner if owner and last in ("weight", "bias", "running_mean", "running_var") else tensor


def _node_of(program: Program, tensor: str) -> str:
    return next((n.name for n in program.module.graph.nodes if n.op == "get_attr" and n.target == tensor), "")
