"""Parts of a network that torch.export wraps into own graphs, put back inline; it must never hold another rewrite.

`with torch.autocast(enabled=False)` and `with torch.no_grad()` inside a `forward` become higher-order calls. Without
autocast around it the first changes nothing; the second only stops gradients, which `detach` says as well.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.fx import Node

from compressor.errors import ModelError

_AUTOCAST = torch.ops.higher_order.wrap_with_autocast
_GRADIENTS = torch.ops.higher_order.wrap_with_set_grad_enabled


def inline_regions(graph: fx.Graph, owner: nn.Module) -> None:
    """Replace every wrapped region by its operators (edits the graph in place); regions in regions too.

    Raises:  ModelError if a region switches mixed precision on: the program would have to follow it there.
    """
    while wrapped := [node for node in graph.nodes if node.target in (_AUTOCAST, _GRADIENTS)]:
        for node in wrapped:
            _inline(graph, node, owner)


def _inline(graph: fx.Graph, node: Node, owner: nn.Module) -> None:
    if node.target is _AUTOCAST:
        _, _, enabled, _, body, *given = node.args
        if enabled:
            raise ModelError("a part of the model runs under autocast of its own; switch that off to export it")
        stops_gradients = False
    else:
        enables, body, *given = node.args
        stops_gradients = not enables
    assert isinstance(body, Node)
    prefix = str(body.target)
    region = owner.get_submodule(prefix)
    assert isinstance(region, fx.GraphModule)
    values, result = _copied(graph, node, region, prefix, given)
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(_leaf(graph, node, values, result[user.args[1]], stops_gradients))
        graph.erase_node(user)
    graph.erase_node(node)
    if not body.users:
        graph.erase_node(body)


def _copied(
    graph: fx.Graph, at: Node, region: fx.GraphModule, prefix: str, given: list[Any]
) -> tuple[dict[Node, Any], Any]:
    """The region's operators in front of `at`: the copy of each, and what the region returns."""
    values: dict[Node, Any] = {}
    arguments = iter(given)
    result: Any = ()
    with graph.inserting_before(at):
        for inner in region.graph.nodes:
            if inner.op == "placeholder":
                values[inner] = next(arguments)
            elif inner.op == "output":
                result = inner.args[0]
            else:
                values[inner] = graph.node_copy(inner, lambda n: values[n])
                if inner.op == "get_attr":
                    values[inner].target = f"{prefix}.{inner.target}"
    return values, result


def _leaf(graph: fx.Graph, at: Node, values: dict[Node, Any], leaf: Any, stops_gradients: bool) -> Any:
    value = values[leaf] if isinstance(leaf, Node) else leaf
    if not stops_gradients or not isinstance(value, Node):
        return value
    with graph.inserting_before(at):
        stopped = graph.call_function(torch.ops.aten.detach.default, (value,))
    stopped.meta = dict(value.meta)
    return stopped
