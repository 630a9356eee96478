"""The one walk over a graph that finds its constants; it must never hold the transfer of an operator.

An operator without a transfer makes its result unknown, unless all that it reads are the network's own constants.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.compaction import transfer_contract, transfer_move, transfer_pointwise, transfer_reduce
from compressor.compaction.constants import (
    TRANSFERS,
    Arguments,
    Constants,
    Pair,
    Walked,
    everything,
    nothing,
    run,
    settle,
    tensors_in,
)
from compressor.program import Program, TensorShape, arguments, families, infer_shapes
from compressor.typed_torch import schema_of

_OF_NUMBERS = families.FILLED | families.NUMBERS | families.FILLED_LIKE
"""What makes its values of numbers, whatever tensor lends it size, type and device."""

TRANSFER_MODULES = (transfer_contract, transfer_move, transfer_pointwise, transfer_reduce)

_LEAST_BUDGET_BYTES = 2**26
_FREE_BYTES = 2**20
_SHAPE_ARGUMENTS = frozenset(
    {"size", "shape", "sizes", "repeats", "end", "start", "split_size", "split_sizes", "length", "dims", "step"}
)


@dataclass
class _State:
    """Values so far, and how much more may be spent on whole maps."""

    values: dict[str, Walked] = field(default_factory=dict)
    of_batch: set[str] = field(default_factory=set)
    budget_bytes: int = 0


@torch.no_grad()
def find_constants(program: Program) -> Mapping[str, Walked]:
    """What is known of every value in the graph, in evaluation mode, for any number of samples; by node name.

    Whole maps are kept while they are smaller than the parameters; beyond that they count as unknown.
    """
    n_bytes = sum(p.numel() * p.element_size() for p in program.module.parameters())
    state = _State(budget_bytes=max(n_bytes, _LEAST_BUDGET_BYTES))
    shapes = program.shapes
    others = shapes
    if program.has_dynamic_batch:
        others = infer_shapes(program.module, program.inputs, batch=program.sampled_batch + 1)
    tensors = program.module.tensors()
    for node in program.module.graph.nodes:
        if node.op == "get_attr":
            state.values[node.name] = everything(tensors[str(node.target)])
        elif node.op == "placeholder":
            state.values[node.name] = _wrapped(None, shapes[node.name], others[node.name], state)
        elif node.op == "call_function":
            _call(node, shapes[node.name], others[node.name], state)
    return state.values


def _call(node: Node, shape: Any, other: Any, state: _State) -> None:
    if not _has_tensor(shape):
        state.values[node.name] = shape
        if shape != other:
            state.of_batch.add(node.name)
        return
    values: Any = state.values  # map_arg is typed for nodes only
    bound: dict[str, Any] = map_arg(arguments(node), lambda n: values[n.name])
    if node.target is operator.getitem:
        state.values[node.name] = bound["self"][bound["index"]]
        return
    found = None if _computes_with_batch(node, state.of_batch) else _found(node, bound, shape)
    learned = node.target not in _OF_NUMBERS and any(x.learned for x in tensors_in(bound))
    state.values[node.name] = _wrapped(found, shape, other, state, learned)


def _computes_with_batch(node: Node, of_batch: set[str]) -> bool:
    """Whether the number of samples is an operand, not only a size."""
    if not of_batch:
        return False
    operands = {name: value for name, value in arguments(node).items() if name not in _SHAPE_ARGUMENTS}
    names: list[str] = []
    map_arg(operands, lambda n: names.append(n.name))
    return not of_batch.isdisjoint(names)


def _found(node: Node, a: Arguments, shape: Any) -> Any:
    found = TRANSFERS.get(node.target)
    if found is None and families.works_by_element(node.target):
        found = transfer_pointwise.element_by_element
    if found is not None:
        return found(node, a, shape)
    return _of_constants(node, a)


def _of_constants(node: Node, a: Arguments) -> Any:
    """Whatever an operator does, it does to constants what the network will do to them."""
    operands = tensors_in(a)
    tags = getattr(node.target, "tags", ())
    certain = torch.Tag.nondeterministic_seeded not in tags and hasattr(node.target, "_schema")
    if not certain or not operands or any(not x.all_known or x.batch for x in operands):
        return None
    if schema_of(node.target).is_mutable:
        return None
    made = run(node, a, lambda c: c.along(range(c.rank)).value)
    if isinstance(made, Tensor):
        return Pair(made, torch.ones((1,) * made.dim(), dtype=torch.bool))
    return [Pair(part, torch.ones((1,) * part.dim(), dtype=torch.bool)) for part in made]


def _wrapped(found: Any, shape: Any, other: Any, state: _State, learned: bool = False) -> Walked:
    if isinstance(shape, tuple):
        parts = found if isinstance(found, list) else [None] * len(shape)
        return tuple(_wrapped(p, s, o, state, learned) for p, s, o in zip(parts, shape, other, strict=True))
    if not isinstance(shape, TensorShape):
        return shape
    batch = frozenset(dim for dim, (a, b) in enumerate(zip(shape.sizes, other.sizes, strict=True)) if a != b)
    if found is None:
        return nothing(shape.sizes, batch)
    settled = _afforded(settle(found, shape.sizes, batch), state)
    return replace(settled, learned=learned and settled.any_known)


def _afforded(constants: Constants, state: _State) -> Constants:
    n_bytes = constants.value.numel() * constants.value.element_size()
    if n_bytes <= _FREE_BYTES:
        return constants
    if n_bytes > state.budget_bytes:
        return nothing(constants.sizes, constants.batch)
    state.budget_bytes -= n_bytes
    return constants


def _has_tensor(shape: Any) -> bool:
    if isinstance(shape, tuple):
        return any(_has_tensor(part) for part in shape)
    return isinstance(shape, TensorShape)
