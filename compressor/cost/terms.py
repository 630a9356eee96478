"""Costs as sums of products of kept counts: one term per parameter, one or more per multiplying operator.

It must never know which indices go together: a factor only names an axis, whoever holds units counts what stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from torch.fx import Node

from compressor.cost.products import Factor, products_of
from compressor.program import Program, TensorShape, find_layers
from compressor.units import Macs


@dataclass(frozen=True)
class Term:
    """`coefficient` times the kept counts of all `factors`; `owner` is the parameter or node it is the cost of.

    `tensor` is the parameter that an operator multiplies with, itself or what is computed from it, if it does.
    """

    owner: str
    coefficient: float
    factors: tuple[Factor, ...]
    tensor: str | None = None


def parameter_terms(program: Program) -> tuple[Term, ...]:
    """One term per parameter, 1 x the kept count of each dimension."""
    return tuple(
        Term(name, 1.0, tuple(Factor(name, dim, True) for dim in range(parameter.dim())), name)
        for name, parameter in program.module.named_parameters()
    )


def mac_terms(program: Program) -> tuple[Term, ...]:
    """What every operator multiplies, for one sample; owned by its node.

    Shapes are those of a whole batch. A product of what descends from its samples counts for one of them; one of
    parameters alone (a weight is computed) is taken once, however many samples there are.
    """
    found = Descent(program)
    return tuple(
        Term(node.name, found.share(product.operands), product.axes, found.parameter(product.operands))
        for node in program.module.graph.nodes
        for product in products_of(program, node)
    )


class Descent:
    """What each value of a graph is made of: samples, other inputs, or parameters alone, and which is the largest."""

    def __init__(self, program: Program) -> None:
        self._batch = program.sampled_batch
        self._of_samples, self._of_inputs = set[Node](), set[Node]()
        self._parameter: dict[Node, str] = {}
        sizes = {name: parameter.numel() for name, parameter in program.module.named_parameters()}
        inputs = [node for node in program.module.graph.nodes if node.op == "placeholder"]
        batched = {n for n, spec in zip(inputs, program.inputs, strict=False) if spec.shape[:1] == (None,)}
        batched = batched or set(inputs)
        for node in program.module.graph.nodes:
            sources = node.all_input_nodes
            if node in batched or not self._of_samples.isdisjoint(sources):
                self._of_samples.add(node)
            if node.op == "placeholder" or not self._of_inputs.isdisjoint(sources):
                self._of_inputs.add(node)
            elif node.op == "get_attr" and node.target in sizes:
                self._parameter[node] = str(node.target)
            elif names := [self._parameter[source] for source in sources if source in self._parameter]:
                self._parameter[node] = max(names, key=lambda name: sizes[name])

    def share(self, operands: tuple[Node, ...]) -> float:
        """The share of one sample in a product that is computed for the whole batch."""
        return 1.0 if self._of_samples.isdisjoint(operands) else 1 / self._batch

    def parameter(self, operands: tuple[Node, ...]) -> str | None:
        """The parameter that stands behind the first operand that no input has touched."""
        return next((self._parameter[node] for node in operands if node in self._parameter), None)


def dense_cost(program: Program, term: Term) -> float:
    """What a term costs with everything kept."""
    return reduce(lambda product, factor: product * _length(program, factor), term.factors, term.coefficient)


def macs_of_layers(program: Program) -> dict[str, Macs]:
    """Multiply-adds of one sample, by the name of a layer's node; they add up to `count_macs`.

    What multiplies with a computed weight stands under the first layer that has the parameter which that comes from,
    what multiplies no parameter (attention) under its own node.
    """
    layers = find_layers(program)
    nodes = {layer.node for layer in layers}
    of_tensor: dict[str | None, str] = {}
    for layer in layers:
        for tensor in layer.tensors:
            of_tensor.setdefault(tensor, layer.node)
    found: dict[str, float] = {}
    for term in mac_terms(program):
        name = term.owner if term.owner in nodes else of_tensor.get(term.tensor, term.owner)
        found[name] = found.get(name, 0.0) + dense_cost(program, term)
    return {name: Macs(round(cost)) for name, cost in found.items()}


def weight_prices(program: Program) -> dict[str, float]:
    """Multiply-adds of one sample that an element of a layer's own weight takes part in, by the name of its node."""
    sizes = {layer.node: program.module.tensors()[layer.weight].numel() for layer in find_layers(program)}
    found: dict[str, float] = {}
    for term in mac_terms(program):
        if term.owner in sizes:
            found[term.owner] = found.get(term.owner, 0.0) + dense_cost(program, term) / sizes[term.owner]
    return found


def _length(program: Program, factor: Factor) -> int:
    if factor.is_tensor:
        return program.module.get_parameter(factor.name).shape[factor.dim]
    shape = program.shapes[factor.name]
    assert isinstance(shape, TensorShape)
    return shape.sizes[factor.dim]
