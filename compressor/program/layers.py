"""The layers of a program: operators that own weights, under the names their parameters have.

It must never hold costs or labels; it only says which tensor plays which part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.fx import Node

from compressor.program import families
from compressor.program.arguments import arguments
from compressor.program.program import Program


@dataclass(frozen=True)
class Layer:
    """One operator with weights. `out_dim` and `in_dim` are the weight's filter and channel dimensions.

    `kind` is the name of the operator's family, or `parameter`.
    `tensors` names every parameter and buffer it reads, the weight first; a shared weight makes several layers.
    """

    name: str
    kind: str
    node: str
    weight: str
    tensors: tuple[str, ...]
    out_dim: int
    in_dim: int | None

    @property
    def multiplies(self) -> bool:
        """Whether its weights are multiplied and summed, or looked up: no norm and no bare parameter, which belong to
        what others compute."""
        return self.in_dim is not None or self.kind in _WITHOUT_CHANNELS


_BY_MATRIX = families.MATMUL | families.MM | families.ADDMM
"""Products whose second operand, where it is a matrix of parameters, is a linear layer's weight (I, O)."""

FILTERED = frozenset(family.name for family in families.WITH_FILTERS.families)
"""Kinds whose operators call their operands `input` and `weight`: what is timed alone, and selected in front of."""

CONTRACTIONS = FILTERED | frozenset(family.name for family in _BY_MATRIX.families)
"""Kinds whose weights are multiplied and summed: what filter and unstructured patterns apply to."""

_WITHOUT_CHANNELS = frozenset(
    {families.BILINEAR.name}
    | {families.operator_name(one).removesuffix("_cell") for one in families.RECURRENT | families.RECURRENT_CELL}
)
"""Kinds with more than one weight that multiplies: none of their dimensions are the channels of one input."""

GEMM_KINDS = frozenset({families.CONV2D.name, families.LINEAR.name})
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


_DATA = ("input", "input1", "input2", "indices")
"""Arguments that a layer works on: a parameter there (a code that a hypernetwork reads) is none of its weights."""


def find_layers(program: Program) -> tuple[Layer, ...]:
    """Every layer in graph order; a parameter that only arithmetic reads is a layer of kind `parameter`."""
    layers: list[Layer] = []
    owned: set[str] = set()
    parameters = program.parameters
    for node in program.module.graph.nodes:
        if node.op != "call_function":
            continue
        found = _layer(node) or _product(node, parameters) or _recurrent_layer(node)
        if found is not None:
            layers.append(found)
            owned.update(found.tensors)
    for name in parameters:
        if name not in owned:
            layers.append(Layer(name, "parameter", _node_of(program, name), name, (name,), 0, None))
    return tuple(layers)


def _layer(node: Node) -> Layer | None:
    family = families.family_of(node.target)
    if family is None or family.filter_dim is None:
        return None
    bound = {name: v for name, v in arguments(node).items() if name not in _DATA}
    read = {name: v for name, v in bound.items() if isinstance(v, Node) and v.op == "get_attr"}
    weight = read.pop("weight", None)
    if weight is None:
        return None
    name = str(weight.target)
    tensors = (name, *(str(other.target) for other in read.values()))
    return Layer(layer_name(name), family.name, node.name, name, tensors, family.filter_dim, family.channel_dim)


def _product(node: Node, parameters: Mapping[str, nn.Parameter]) -> Layer | None:
    """A linear layer written as a product with a matrix (GPT-2's), and what is added if it is a parameter."""
    if node.target not in _BY_MATRIX:
        return None
    bound, (first, last) = arguments(node), families.operands_of(node.target)
    names = {name: str(v.target) for name, v in bound.items() if isinstance(v, Node) and v.op == "get_attr"}
    weight, added = names.get(last, ""), names.get("self")
    if first in names or weight not in parameters or parameters[weight].dim() != 2:
        return None
    family = families.family_of(node.target)
    assert family is not None
    tensors = (weight,) if added is None else (weight, added)
    return Layer(layer_name(weight), family.name, node.name, weight, tensors, out_dim=1, in_dim=0)


def _recurrent_layer(node: Node) -> Layer | None:
    """All weights of a recurrent layer or cell as one layer, by the rows of its first matrix; none is a kernel's."""
    if node.target not in families.RECURRENT and node.target not in families.RECURRENT_CELL:
        return None
    bound = arguments(node)
    given = bound["params"] if "params" in bound else [bound[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    names = [str(value.target) for value in given if isinstance(value, Node) and value.op == "get_attr"]
    if not names:
        return None
    owner = names[0].rpartition(".")[0] or names[0]
    kind = families.operator_name(node.target).removesuffix("_cell")
    return Layer(owner, kind, node.name, names[0], tuple(names), 0, None)


def layer_name(tensor: str) -> str:
    """`layer1.0.conv1.weight` -> `layer1.0.conv1`; a bare parameter keeps its name."""
    owner, _, last = tensor.rpartition(".")
    return owner if owner and last in ("weight", "bias", "running_mean", "running_var") else tensor


def _node_of(program: Program, tensor: str) -> str:
    return next((n.name for n in program.module.graph.nodes if n.op == "get_attr" and n.target == tensor), "")
