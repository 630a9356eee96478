"""Reading and writing of operator arguments by schema name; it must never hold positions of any operator.

ATen overloads put the same argument at different places (`dropout(input, p, train)`, `batch_norm(..., training, ...)`),
and exported graphs leave trailing defaults out. Everything that looks into a node goes through here.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

_torch: Any = torch  # its stubs say nothing about these
_OF_ONE: tuple[Any, ...] = (operator.neg, operator.pos, operator.abs, _torch.sym_int, _torch.sym_float, _torch.sym_not)
_PYTHON_SIGNATURES: dict[Any, tuple[str, ...]] = {
    operator.getitem: ("self", "index"),
    _torch.sym_ite: ("condition", "self", "other"),
    **dict.fromkeys(_OF_ONE, ("self",)),
}
"""Arguments of what is no operator of torch's; all others take two."""


@lru_cache(maxsize=4096)
def _signature(target: Any) -> tuple[tuple[str, Any], ...]:
    """(name, default) per schema argument; `...` marks one without default."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        names = _PYTHON_SIGNATURES.get(target, ("self", "other"))
        return tuple((name, ...) for name in names)
    return tuple((a.name, a.default_value if a.has_default_value() else ...) for a in schema.arguments)


def n_operands(function: Any) -> int:
    """How many arguments a function on sizes takes that is no operator of torch's."""
    return len(_signature(function))


def has_argument(target: Any, name: str, *, beyond: int = 0) -> bool:
    """Whether an operator has an argument of that name, not counting the first `beyond`."""
    return any(known == name for known, _ in _signature(target)[beyond:])


def arguments(node: Node) -> dict[str, Any]:
    """Every argument of the node by schema name, defaults filled in.

    Raises:  KeyError if a required argument is missing (a graph that torch itself could not run).
    """
    bound: dict[str, Any] = {}
    for position, (name, default) in enumerate(_signature(node.target)):
        if position < len(node.args):
            bound[name] = node.args[position]
        elif name in node.kwargs:
            bound[name] = node.kwargs[name]
        elif default is ...:
            raise KeyError(f"{node.name}: {node.target} has no argument {name}")
        else:
            bound[name] = default
    return bound


def measured_arguments(node: Node, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument by schema name, with the number in place of one that the graph computes, as of the batch.

    Whoever calculates with an argument reads it here: any that takes a number may hold one that depends on the batch.
    """
    return {name: map_arg(value, lambda n: _measured(n, shapes)) for name, value in arguments(node).items()}


def _measured(node: Node, shapes: Mapping[str, Any]) -> Any:
    found = shapes.get(node.name)
    return found if isinstance(found, (bool, int, float)) else node


def set_argument(node: Node, name: str, value: Any) -> None:
    """Set one argument, where the node already gives it or else as a keyword.

    Raises:  KeyError if the operator has no such argument.
    """
    names = [known for known, _ in _signature(node.target)]
    if name not in names:
        raise KeyError(f"{node.name}: {node.target} has no argument {name}")
    position = names.index(name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)
