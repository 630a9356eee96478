"""The graph of a program <-> text, one JSON object per node and line.

It must never hold tensors, and the reader never trusts the text: what it builds can only compute.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, fx
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.errors import ModelError
from compressor.formats.allowed import resolve_target, target_text
from compressor.formats.arguments import decode, encode
from compressor.formats.calls import check_call
from compressor.formats.names import check_node_name, check_tensor_names, shown
from compressor.narrowing import is_dict, is_list

_MOST_NODES = 150_000
"""Seven times the largest network seen; each costs some 50 µs to read."""
_LONGEST_WHERE = 400
_KEYS = frozenset({"name", "op", "target", "args", "kwargs", "where"})


def write_graph(graph: fx.Graph) -> str:
    """The graph as lines of JSON: name, op, target, args, kwargs, and where in the source it came from.

    Raises:  ModelError naming the node that a checkpoint cannot hold.
    """
    return "\n".join(_line(node) for node in graph.nodes) + "\n"


def read_graph(text: str, tensors: Mapping[str, Tensor]) -> fx.Graph:
    """The graph that the text describes; its `get_attr` nodes name members of `tensors`.

    Raises:  ModelError naming the first line that is not a computing node on what came before it.
    """
    check_tensor_names(tensors)
    graph = fx.Graph()
    nodes: dict[str, Node] = {}
    ended = False
    for number, line in enumerate(_lines(text), start=1):
        entry = _entry(line, number)
        try:
            name = check_node_name(entry["name"])
            if ended:
                raise ModelError("it comes after the output")
            if name in nodes:
                raise ModelError("its name is used twice")
            node = _add(graph, name, entry, nodes, tensors)
        except ModelError as error:
            raise ModelError(f"graph line {number} ({str(entry['name'])[:60]}): {error}") from error
        node.meta["where"] = shown(entry.get("where", ""), _LONGEST_WHERE)
        nodes[name], ended = node, ended or node.op == "output"
    if not ended:
        raise ModelError("the graph has no output; the file is damaged")
    return graph


def _line(node: Node) -> str:
    try:
        entry = {
            "name": check_node_name(node.name),
            "op": node.op,
            "target": _write_target(node),
            "args": [encode(value) for value in node.args] if node.op != "placeholder" else [],
            "kwargs": {key: encode(value) for key, value in node.kwargs.items()},
        }
    except ModelError as error:
        raise ModelError(f"{node.meta.get('where') or node.name}: {error}") from error
    if where := str(node.meta.get("where") or ""):
        entry["where"] = where
    return json.dumps(entry, allow_nan=False, separators=(",", ":"))


def _write_target(node: Node) -> str:
    if node.op == "call_function":
        return target_text(node.target)
    if node.op in ("placeholder", "output"):
        return node.name if node.op == "placeholder" else "output"
    if node.op == "get_attr":
        return str(node.target)
    raise ModelError(f"a node of kind {node.op} cannot be kept in a checkpoint")


def _lines(text: str) -> Iterator[str]:
    n_lines = text.count("\n")
    if n_lines > _MOST_NODES:
        raise ModelError(f"the graph has {n_lines:,} nodes; more than {_MOST_NODES:,} are not read")
    return (line for line in text.split("\n") if line)


def _entry(line: str, number: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"graph line {number}: is not JSON; the file is damaged") from error
    if not is_dict(entry) or not {"name", "op", "target", "args", "kwargs"} <= entry.keys() <= _KEYS:
        raise ModelError(f"graph line {number}: is not a node; the file is damaged")
    return entry


def _add(
    graph: fx.Graph,
    name: str,
    entry: Mapping[str, Any],
    nodes: Mapping[str, Node],
    tensors: Mapping[str, Tensor],
) -> Node:
    given, named = entry["args"], entry["kwargs"]
    if not is_list(given) or not is_dict(named):
        raise ModelError("its arguments are not a list and a dictionary")
    args = tuple(decode(value, nodes) for value in given)
    kwargs = {key: decode(value, nodes) for key, value in named.items()}
    target, op = entry["target"], entry["op"]
    if op == "call_function" and isinstance(target, str):
        function = resolve_target(target)
        check_call(function, args, kwargs)
        node = graph.create_node(op, function, args, kwargs, name=name)
    elif op in ("placeholder", "get_attr", "output"):
        node = _add_end(graph, name, op, target, args, kwargs, tensors)
    else:
        raise ModelError(f"a node of unknown kind {str(op)[:40]!r}")
    if node.name != name:
        raise ModelError("its name is one that generated code needs")
    return node


def _add_end(
    graph: fx.Graph,
    name: str,
    op: str,
    target: object,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> Node:
    """An input, a tensor or the output: the nodes that call nothing."""
    if kwargs or len(args) != (1 if op == "output" else 0):
        raise ModelError(f"{op} with arguments that it does not take")
    if op == "output":
        _check_output(args[0])
        return graph.create_node(op, "output", args, name=name)
    if op == "placeholder":
        if target != name:
            raise ModelError("an input whose target is not its name")
        return graph.create_node(op, name, name=name)
    if not isinstance(target, str) or target not in tensors:
        raise ModelError(f"there is no tensor {str(target)[:60]!r}")
    return graph.create_node(op, target, name=name)


def _check_output(value: Any) -> None:
    found: list[Node] = []
    map_arg(value, lambda node: found.append(node) or node)
    if not found:
        raise ModelError("an output that is no value of the graph")
