"""Which values of a graph share memory, and which operators write to it; it must never change a graph."""

from __future__ import annotations

import operator
from collections.abc import Iterator

from torch import fx
from torch.fx import Node

from compressor.narrowing import is_row
from compressor.program import families
from compressor.program.arguments import arguments

_ALIASING = frozenset(
    {"reshape", "contiguous", "flatten", "to", "dropout", "expand_as", "movedim", "view_as", "reshape_as"}
)
"""Operators that may return their input, though their schema does not say so."""


def may_alias(node: Node) -> bool:
    """Whether the value may be the memory of its first argument: a view, or what an operator in place returns."""
    schema = getattr(node.target, "_schema", None)
    if node.op == "call_function" and node.target is operator.getitem:
        return not _is_own_result(node)
    if node.op != "call_function" or schema is None:
        return False
    if families.operator_name(node.target) in _ALIASING:
        return True
    return any(returned.alias_info is not None for returned in schema.returns)


def _is_own_result(part: Node) -> bool:
    """Whether one of several results has memory that no other name has: those of a topk are made anew, each by itself,
    those of a split are views."""
    source, index = part.args[0], part.args[1]
    if not isinstance(source, Node) or getattr(source.target, "_schema", None) is None or may_alias(source):
        return False
    return sum(1 for user in source.users if user.target is operator.getitem and user.args[1] == index) == 1


def owner_of(value: Node) -> Node:
    """The value whose memory this one is: itself, if it is no view."""
    while may_alias(value) and value.args and isinstance(value.args[0], Node):
        value = value.args[0]
    return value


def views_of(written: Node, at: Node) -> set[Node]:
    """All names that the memory of `written` has when `at` runs."""
    root = owner_of(written)
    family, frontier = {root}, [root]
    while frontier:
        for user in frontier.pop().users:
            if may_alias(user) and user not in family and user < at:
                family.add(user)
                frontier.append(user)
    return family


def writes_of(graph: fx.Graph) -> Iterator[tuple[Node, Node]]:
    """Every operator that writes into what it is given, with the value that owns that memory."""
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        bound = arguments(node)
        for argument in schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = bound[argument.name]
                for written in given if is_row(given) else [given]:
                    if isinstance(written, Node):
                        yield node, owner_of(written)
