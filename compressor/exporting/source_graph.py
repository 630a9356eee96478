"""The graph as the generated source tells it: without what computes nothing, sizes that follow the batch known; it must
never change the program's own graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from torch.fx import Node

from compressor.exporting.source_regions import Path, Regions, divide
from compressor.program import Program, families
from compressor.program.arguments import arguments
from compressor.program.normalise import SIZE_ARITHMETIC
from compressor.program.shapes import Shapes, TensorShape, infer_shapes

_SAMPLES = (5, 7)
"""Two batches: a size that is the batch in both follows it."""
_END = 2**63 - 1


@dataclass(frozen=True)
class Ports:
    """Values that a module takes and gives, in order."""

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


@dataclass(frozen=True)
class Told:
    """What is told: `sizes` are integers computed from the batch alone, which every forward finds out by itself."""

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    shapes: tuple[Shapes, Shapes]
    sizes: frozenset[Node]
    regions: Regions

    def is_batch(self, value: Any) -> bool:
        return isinstance(value, Node) and tuple(shapes.get(value.name) for shapes in self.shapes) == _SAMPLES

    def batch_dim(self, value: Node) -> int | None:
        """The dimension of a tensor that is the batch."""
        sizes = [shapes.get(value.name) for shapes in self.shapes]
        if not all(isinstance(size, TensorShape) for size in sizes):
            return None
        pairs = zip(*(size.sizes for size in sizes if isinstance(size, TensorShape)), strict=True)
        return next((dim for dim, pair in enumerate(pairs) if pair == _SAMPLES), None)

    def values(self, node: Node) -> list[Node]:
        """Values of the graph that an operator reads, tensors with names and sizes left out."""
        return [v for v in node.all_input_nodes if v.op != "get_attr" and v not in self.sizes]

    def ports(self, path: Path) -> Ports:
        inside = self.regions.inside(path)
        members = set(inside)
        inputs = dict.fromkeys(v for node in inside for v in self.values(node) if v not in members)
        outputs = tuple(node for node in inside if any(user not in members for user in node.users))
        return Ports(tuple(inputs), outputs)


def tell(program: Program) -> Told:
    """The division of a program's graph into modules."""
    graph = copy.deepcopy(program.module.graph)
    tensors = program.module.tensors()
    if program.has_dynamic_batch:
        shapes = tuple(infer_shapes(program.module, program.inputs, batch=batch) for batch in _SAMPLES)
        first, second = shapes
    else:
        first = second = program.shapes
    is_flat = any(getattr(getattr(n.target, "_schema", None), "is_mutable", False) for n in graph.nodes)
    if not is_flat:
        _drop_idle(graph)
    told = Told(graph, tensors, (first, second), frozenset(), Regions([], {}, {}, {}))
    sizes = _sizes(graph, told)
    nodes = [node for node in graph.nodes if node.op == "call_function" and node not in sizes]
    told = Told(graph, tensors, (first, second), frozenset(sizes), divide(graph, tensors, first, nodes, is_flat))
    _keep_only_sized(told, sizes)
    return told


def _drop_idle(graph: fx.Graph) -> None:
    """Take out what gives its input back: a dropout of nothing, a slice of everything."""
    for node in list(graph.nodes):
        if node.target not in families.DROPOUT and node.target not in families.SLICE:
            continue
        b = arguments(node)
        if node.target in families.DROPOUT:
            is_idle, given = b["p"] == 0, b["input"]
        else:
            is_idle, given = b["start"] in (None, 0) and b["end"] in (None, _END) and b["step"] == 1, b["self"]
        if is_idle:
            node.replace_all_uses_with(given)
            graph.erase_node(node)


def _sizes(graph: fx.Graph, told: Told) -> set[Node]:
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        is_arithmetic = node.target in SIZE_ARITHMETIC and bool(node.all_input_nodes)
        follows = is_arithmetic and all(given in found for given in node.all_input_nodes)
        if follows or (node.target in families.SIZE and told.is_batch(node)):
            found.add(node)
    return found


def _keep_only_sized(told: Told, sizes: set[Node]) -> None:
    """Dissolve modules that need the batch and cannot read it off what they are given."""
    regions = told.regions
    for path in sorted(regions.callable, key=len, reverse=True):
        needs = any(given in sizes for node in regions.inside(path) for given in node.all_input_nodes)
        has = any(told.batch_dim(value) is not None for value in told.ports(path).inputs)
        if (needs and not has) or not told.ports(path).inputs:
            regions.dissolve(path)
