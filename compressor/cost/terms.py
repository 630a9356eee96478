"""Costs as sums of products of kept counts: one term per parameter, one per multiplying operator.

It must never know which indices go together: a factor only names an axis, whoever holds units counts what stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from compressor.program import CONTRACTIONS, Program, TensorShape, arguments, families, find_layers
from compressor.units import Macs

COUNTED = families.WITH_FILTERS | families.MATRIX_PRODUCTS | families.ATTENTION
"""What has a term: everything that multiplies and sums, as far as it is known here."""


@dataclass(frozen=True)
class Factor:
    """The kept count along one dimension of a parameter (`is_tensor`) or of a node's value."""

    name: str
    dim: int
    is_tensor: bool


@dataclass(frozen=True)
class Term:
    """`coefficient` times the kept counts of all `factors`; `owner` is the parameter or node it is the cost of."""

    owner: str
    coefficient: float
    factors: tuple[Factor, ...]


def parameter_terms(program: Program) -> tuple[Term, ...]:
    """One term per parameter, 1 x the kept count of each dimension."""
    return tuple(
        Term(name, 1.0, tuple(Factor(name, dim, True) for dim in range(parameter.dim())))
        for name, parameter in program.module.named_parameters()
    )


def mac_terms(program: Program) -> tuple[Term, ...]:
    """One term per convolution, linear layer, matrix product or attention, for one sample; owned by its node."""
    batch = program.sampled_batch
    terms: list[Term] = []
    for layer in find_layers(program):
        if layer.kind in CONTRACTIONS:
            terms.append(_weight_term(program, layer.node, layer.weight, layer.kind, batch))
    covered = {term.owner for term in terms}
    for node in program.module.graph.nodes:
        if node.op == "call_function" and node.name not in covered:
            terms.extend(_product_terms(program, node, batch))
    return tuple(terms)


def _weight_term(program: Program, node: str, weight: str, kind: str, batch: int) -> Term:
    """Every weight is used once per output position (input position for a transposed convolution)."""
    sizes = program.module.tensors()[weight].shape
    shape = program.shapes[node]
    assert isinstance(shape, TensorShape)
    if kind == "linear":
        positions = math.prod(shape.sizes[:-1])
    elif kind.startswith("conv_transpose"):
        source = next(n for n in program.module.graph.nodes if n.name == node).args[0]
        positions = math.prod(_sizes(program, source)[2:]) * shape.sizes[0]
    else:
        positions = math.prod(shape.sizes[2:]) * shape.sizes[0]
    factors = tuple(Factor(weight, dim, True) for dim in range(len(sizes)))
    return Term(node, positions / batch, factors)


def _product_terms(program: Program, node: Node, batch: int) -> list[Term]:
    if node.target in families.MATRIX_PRODUCTS:
        bound = arguments(node)
        x, y = (bound[name] for name in families.operands_of(node.target))
        x_dims = range(len(_sizes(program, x)))
        columns = [Factor(y.name, len(_sizes(program, y)) - 1, False)] if len(_sizes(program, y)) > 1 else []
        return [Term(node.name, 1 / batch, (*(Factor(x.name, dim, False) for dim in x_dims), *columns))]
    if node.target in families.ATTENTION:
        bound = arguments(node)
        query, key, value = bound["query"], bound["key"], bound["value"]
        rank = len(_sizes(program, query))
        queries = [Factor(query.name, dim, False) for dim in range(rank)]
        keys = Factor(key.name, rank - 2, False)
        return [
            Term(node.name, 1 / batch, (*queries, keys)),
            Term(node.name, 1 / batch, (*queries[:-1], keys, Factor(value.name, rank - 1, False))),
        ]
    return []


def macs_of_layers(program: Program) -> dict[str, Macs]:
    """Multiply-adds of one sample by node name, with everything kept."""
    found: dict[str, Macs] = {}
    tensors = program.module.tensors()
    for term in mac_terms(program):
        product = term.coefficient
        for factor in term.factors:
            sizes = tensors[factor.name].shape if factor.is_tensor else _sizes_of(program, factor.name)
            product *= sizes[factor.dim]
        found[term.owner] = Macs(found.get(term.owner, 0) + round(product))
    return found


def _sizes(program: Program, node: Any) -> tuple[int, ...]:
    return _sizes_of(program, node.name)


def _sizes_of(program: Program, name: str) -> tuple[int, ...]:
    shape = program.shapes[name]
    assert isinstance(shape, TensorShape)
    return shape.sizes
