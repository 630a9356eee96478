"""What a network leaves in training mode or to chance when it is evaluated: found, named, and settled.

It must never decide silently: whatever is changed here is a line for the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import fx
from torch.fx import Node

from compressor.program import families
from compressor.program.arguments import arguments, set_argument
from compressor.program.layers import layer_name
from compressor.program.module import ProgramModule, switches_to_training

_STATISTICS = {
    **dict.fromkeys(families.BATCH_NORM, "training"),
    **dict.fromkeys(families.INSTANCE_NORM, "use_input_stats"),
}
"""Norms with running statistics, by the argument that says to take those of the input instead."""
_N_SHOWN = 3
_LONGEST_PLACE = 80


def drop_unused_statistics(graph: fx.Graph) -> tuple[str, ...]:
    """Take the running statistics from norms that do not use them in evaluation (edits the graph in place).

    Such a norm was left in training mode: it writes running statistics and reads those of its input. Without any it
    computes the same in both modes. Returns the names of these norms.
    """
    found: list[str] = []
    for node in list(graph.nodes):
        bound = arguments(node) if node.target in _STATISTICS else {}
        if not bound or not bound[_STATISTICS[node.target]] or bound["running_mean"] is None:
            continue
        found.append(_norm_name(node))
        for name in ("running_mean", "running_var"):
            set_argument(node, name, None)
            if not bound[name].users:
                graph.erase_node(bound[name])
    return tuple(found)


def batch_statistics(graph: fx.Graph) -> tuple[str, ...]:
    """Names of the batch norms that take the statistics of the batch in evaluation."""
    nodes = (node for node in graph.nodes if node.target in families.BATCH_NORM)
    return tuple(_norm_name(node) for node in nodes if arguments(node)["running_mean"] is None)


class SwitchedOff(NamedTuple):
    """Places of dropout that was on in evaluation: what training switches on again, and what is gone for good."""

    until_training: tuple[str, ...]
    for_good: tuple[str, ...]


def switch_off_dropout(module: ProgramModule) -> SwitchedOff:
    """Put the module into evaluation mode, all of it; attention has no mode, only a rate."""
    until_training: list[str] = []
    for_good: list[str] = []
    for node in module.graph.nodes:
        bound = arguments(node) if node.op == "call_function" else {}
        if node.target in families.ATTENTION and bound["dropout_p"]:
            set_argument(node, "dropout_p", 0.0)
            for_good.append(_place(node))
        elif switches_to_training(node) and bound.get("p", bound.get("dropout", 1.0)):
            until_training.append(_place(node))
    module.eval()
    if for_good:
        module.recompile()
    return SwitchedOff(tuple(dict.fromkeys(until_training)), tuple(dict.fromkeys(for_good)))


def random_places(graph: fx.Graph) -> tuple[str, ...]:
    """The places of operators that draw random numbers in evaluation."""
    drawing = (n for n in graph.nodes if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ()))
    return tuple(dict.fromkeys(_place(node) for node in drawing if not _is_quiet(node)))


def shown(names: Iterable[str]) -> str:
    """The first few of some names."""
    listed = list(names)
    return ", ".join(listed[:_N_SHOWN]) + (" …" if len(listed) > _N_SHOWN else "")


def _is_quiet(node: Node) -> bool:
    """Whether an operator that can draw does not: dropout, recurrent layers and attention in evaluation."""
    if node.target in families.ATTENTION:
        return not arguments(node)["dropout_p"]
    return switches_to_training(node) is not None


def _norm_name(node: Node) -> str:
    bound = arguments(node)
    tensor = next((bound[n] for n in ("weight", "running_mean") if isinstance(bound[n], Node)), None)
    return layer_name(str(tensor.target)) if tensor is not None and tensor.op == "get_attr" else _place(node)


def _place(node: Node) -> str:
    return (node.meta.get("where") or node.name)[:_LONGEST_PLACE]
