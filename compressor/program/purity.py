"""Writes of a graph into its own tensors and inputs, which one call must not leave for the next.

It must never change what a single call computes.
"""

from __future__ import annotations

import operator
from functools import partial

import torch
from torch import fx
from torch.fx import Node

from compressor.program.memory import writes_of

aten = torch.ops.aten


def written_tensors(graph: fx.Graph) -> dict[str, str]:
    """Parameters and buffers that the graph writes, each with the user's line that does it, "" if that is unknown."""
    found: dict[str, str] = {}
    for node, root in writes_of(graph):
        if root.op == "get_attr":
            found.setdefault(str(root.target), node.meta.get("where", ""))
    return found


def shield(graph: fx.Graph) -> tuple[Node, ...]:
    """Put a copy between every written tensor or input and all who read it (edits the graph in place).

    So one call starts as every other: with the tensors that the program holds. Returns the copies.
    """
    copies: list[Node] = []
    for name in dict.fromkeys(root.name for _, root in writes_of(graph) if root.op in ("get_attr", "placeholder")):
        root = next(node for node in graph.nodes if node.name == name)
        same = [n for n in graph.nodes if n is root or (n.op == root.op == "get_attr" and n.target == root.target)]
        after = [n for n in graph.nodes if n.op == "placeholder"][-1] if root.op == "placeholder" else same[0]
        with graph.inserting_after(after):
            copied = graph.call_function(aten.clone.default, (same[0],))
        copied.meta = {**root.meta}
        for node in same:
            node.replace_all_uses_with(copied, delete_user_cb=partial(operator.is_not, copied))
        copies.append(copied)
    return tuple(copies)


def unshield(graph: fx.Graph, copies: tuple[Node, ...]) -> None:
    """Take away the copies that nothing writes into any more."""
    written = {root for _, root in writes_of(graph)}
    for copied in copies:
        if copied not in written:
            copied.replace_all_uses_with(copied.all_input_nodes[0])
            graph.erase_node(copied)
