"""Which tables a network looks its whole-number inputs up in; it must never hold what is done with the rows.

A random id must lie inside every table that reads it, and reach all of it: ids of 0 and 1 would compare two rows.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

from torch import fx
from torch.fx import Node

from compressor.program import families
from compressor.program.arguments import arguments
from compressor.program.shapes import Shapes, TensorShape


def table_rows(graph: fx.Graph, shapes: Shapes) -> Mapping[str, int]:
    """For each input that is looked up in tables, by name: the rows of the smallest one.

    Ids that something is computed with before they are looked up are not followed.
    """
    limits: dict[Node, int] = {}
    for node in reversed(list(graph.nodes)):
        rows = [limits[user] for user in node.users if user in limits and _moves(user)]
        rows += [found for user in node.users if (found := _rows(user, node, shapes)) is not None]
        if rows:
            limits[node] = min(rows)
    return {node.name: rows for node, rows in limits.items() if node.op == "placeholder"}


def _rows(reader: Node, ids: Node, shapes: Shapes) -> int | None:
    """How many rows `reader` looks `ids` up in; None if it does something else with them."""
    if reader.op != "call_function":
        return None
    given = arguments(reader)
    if reader.target in families.EMBEDDING and given["indices"] is ids:
        return _size(given["weight"], 0, shapes)
    if reader.target in families.LOOK_UPS and given["index"] is ids:
        return _size(given["self"], given["dim"], shapes)
    if reader.target in families.INDEX and ids in given["indices"]:
        return _size(given["self"], list(given["indices"]).index(ids), shapes)
    if reader.target in families.ONE_HOT and given["self"] is ids:
        return given["num_classes"] if given["num_classes"] > 0 else None
    return None


def _size(table: Node, dim: int, shapes: Shapes) -> int | None:
    shape = shapes.get(table.name)
    return shape.sizes[dim] if isinstance(shape, TensorShape) and shape.sizes else None


def _moves(node: Node) -> bool:
    """Whether the numbers in the result are those that went in."""
    if node.op != "call_function":
        return False
    if node.target in families.COPIES or node.target is operator.getitem:
        return True
    returned = getattr(getattr(node.target, "_schema", None), "returns", ())
    return bool(returned) and all(part.alias_info is not None and not part.alias_info.is_write for part in returned)
