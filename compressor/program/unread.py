"""What nobody reads, taken out of a graph; it must never decide what is read."""

from __future__ import annotations

from collections.abc import Collection

from torch.fx import Graph, Node


def erase_unread(graph: Graph, made: Collection[Node] = ()) -> None:
    """Erase operators that nobody reads, and tensors that only they read.

    A buffer that nobody ever reads (the counter of a norm) stays as long as its layer does; what was `made` in place of
    a layer is not the layer.
    """
    counters = {node for node in graph.nodes if node.op == "get_attr" and not node.users}
    for node in reversed(list(graph.nodes)):
        mutable = bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))
        if not node.users and node.op in ("call_function", "get_attr") and not mutable and node not in counters:
            graph.erase_node(node)
    owners = {_owner(node) for node in graph.nodes if node.op == "get_attr" and node.users and node not in made}
    for node in counters:
        if _owner(node) not in owners:
            graph.erase_node(node)


def _owner(tensor: Node) -> str:
    return str(tensor.target).rpartition(".")[0]
