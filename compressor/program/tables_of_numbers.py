"""What a graph makes of numbers alone, as buffers that can be cut, and fixed places as slices.

It must never change what is computed.

The slopes of ALiBi are powers of a range, one for each head; Falcon takes its key and value out of packed heads at
places that are written down. A value that is made anew by every call has no index that could be left out, and of places
in another tensor nothing is known.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.program import families
from compressor.program.arguments import arguments
from compressor.program.module import ProgramModule
from compressor.program.naming import free_name
from compressor.program.own_positions import own_positions
from compressor.program.program import Program
from compressor.program.unread import erase_unread

aten = torch.ops.aten

_MOST_ELEMENTS = 1 << 16


def open_heads(program: Program) -> Program:
    """The program with what heads have of their own written so that it can go with them: numbers as buffers, a copy for
    each layer, and fixed places as slices. One that has nothing of the kind comes back as it is."""
    graph = copy.deepcopy(program.module.graph)
    tensors = program.module.tensors()
    tables = _tables(graph, tensors)
    n_slices = sum(_as_slice(node, tensors) for node in list(graph.nodes) if node.target in families.INDEX)
    if not tables and not n_slices:
        return program
    erase_unread(graph)
    graph.lint()
    named = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    module = ProgramModule({name: tensor for name, tensor in tensors.items() if name in named}, graph)
    module.training = program.module.training
    return own_positions(program.replace(module=module), among=tables)


def _tables(graph: Any, tensors: dict[str, Tensor]) -> frozenset[str]:
    """Names of the new buffers, one for each value made of numbers that something else reads."""
    values: dict[Node, Tensor] = {}
    ranges: set[Node] = set()
    made: set[str] = set()
    for node in list(graph.nodes):
        if node.op == "get_attr" and _is_number(tensors[str(node.target)]):
            values[node] = tensors[str(node.target)]
        is_source = node.target in families.NUMBERS or node.target in families.FILLED
        if node.op != "call_function" or not (is_source or node.all_input_nodes):
            continue
        if not all(source in values for source in node.all_input_nodes):
            continue
        value = _value(node, values)
        if value is None:
            continue
        values[node] = value
        if node.target in families.NUMBERS or not ranges.isdisjoint(node.all_input_nodes):
            ranges.add(node)
    for node in ranges:
        value = values[node]
        if all(user in values for user in node.users) or not value.is_floating_point() or value.numel() < 2:
            continue
        name = free_name(f"{node.name}_table", tensors)
        tensors[name] = value
        with graph.inserting_before(node):
            read = graph.create_node("get_attr", name)
        read.meta = {"where": node.meta.get("where", "")}
        node.replace_all_uses_with(read, delete_user_cb=lambda user: user not in values)
        made.add(name)
    return frozenset(made)


def _is_number(tensor: Tensor) -> bool:
    """A number that a module wrote down, not one that it learns."""
    return tensor.numel() == 1 and not isinstance(tensor, nn.Parameter)


def _value(node: Node, values: dict[Node, Tensor]) -> Tensor | None:
    """What a node makes of numbers; None for more than one tensor, what draws at random, and what is large."""
    call: Any = node.target
    tags = getattr(call, "tags", ())
    if not hasattr(call, "_schema") or torch.Tag.nondeterministic_seeded in tags or call._schema.is_mutable:
        return None
    known: Any = values  # map_arg is typed for nodes only
    args, kwargs = map_arg((node.args, node.kwargs), lambda source: known[source])
    with torch.no_grad():
        found = call(*args, **kwargs)
    return found if isinstance(found, Tensor) and found.numel() <= _MOST_ELEMENTS else None


def _as_slice(node: Node, tensors: dict[str, Tensor]) -> bool:
    """Makes a slice of positions in a row that are taken by an index which is written down; whether it was one."""
    bound = arguments(node)
    indices = bound["indices"]
    used = [dim for dim, index in enumerate(indices) if index is not None]
    if len(used) != 1 or indices[used[0]].op != "get_attr":
        return False
    index = tensors[str(indices[used[0]].target)]
    if index.dim() != 1 or index.dtype != torch.int64 or not index.numel():
        return False
    first, n = int(index[0]), index.numel()
    in_a_row = torch.equal(index.cpu(), torch.arange(first, first + n))
    if not in_a_row or first < 0 < first + n:
        return False
    end = first + n if first + n != 0 else torch.iinfo(torch.int64).max
    node.target = aten.slice.Tensor
    node.args, node.kwargs = (bound["self"], used[0], first, end), {}
    return True
