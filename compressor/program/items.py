"""Numbers that a graph reads out of its own constants (`new_full(n, stride[0])`, `x[:, start:]`) become numbers in the
graph; it must never read one that inputs or training change.

Most are numbers before there is a graph (`known.py`). These are read inside torch, where no code of the network runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from compressor.program.memory import owner_of, writes_of
from compressor.program.normalise import SIZE_ARITHMETIC, users_line

_UNKNOWN = object()


class OpenReadError(Exception):
    """A number is read out of what inputs or training change; the message is the user's line and what to change."""


def fold_reads(graph: fx.Graph, constants: Mapping[str, Tensor]) -> None:
    """Puts numbers in place of all operators that read one out of `constants` (edits the graph in place).

    Sizes and numbers computed from them become numbers too, and the values that the trace noted are noted anew.

    Raises:  OpenReadError for a number that somebody uses and that is not constant.
    """
    if not any(reads_a_number(node) for node in graph.nodes):
        return
    values = _Values(graph, constants)
    changed: set[Node] = set()
    for node in list(graph.nodes):
        if node.op == "call_function" and (reads_a_number(node) or node.target in SIZE_ARITHMETIC):
            value = values.of(node)
            if isinstance(value, (bool, int, float)):
                changed.update(node.users)
                _replace(node, value)
            elif reads_a_number(node) and node.users:
                raise OpenReadError(_told(node, values))
    _note_again(graph, changed)


def reads_a_number(node: Node) -> bool:
    """Whether a node returns a number that it reads out of a tensor's data, as `item` does."""
    return torch.Tag.data_dependent_output in getattr(node.target, "tags", ())


class _Values:
    """What the nodes of a graph return in every call, where that is always the same."""

    def __init__(self, graph: fx.Graph, constants: Mapping[str, Tensor]) -> None:
        self._constants = constants
        self._written = {root for _, root in writes_of(graph)}
        self._known: dict[Node, Any] = {}

    def of(self, node: Node) -> Any:
        if node not in self._known:
            self._known[node] = self._computed(node)
        return self._known[node]

    def _computed(self, node: Node) -> Any:
        if node.op == "get_attr":
            known = node.target in self._constants and node not in self._written
            return self._constants[str(node.target)].detach() if known else _UNKNOWN
        if node.op != "call_function" or _draws_or_writes(node) or owner_of(node) in self._written:
            return _UNKNOWN
        given = {source: self.of(source) for source in node.all_input_nodes}
        if any(value is _UNKNOWN for value in given.values()):
            return _UNKNOWN
        args, kwargs = map_arg((node.args, node.kwargs), given.__getitem__)
        call: Any = node.target
        with torch.no_grad():
            return call(*args, **kwargs)


def _draws_or_writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return random or (schema is not None and schema.is_mutable)


def _replace(node: Node, value: float) -> None:
    for user in list(node.users):
        user.args, user.kwargs = map_arg((user.args, user.kwargs), lambda n: value if n is node else n)
    node.graph.erase_node(node)


def _note_again(graph: fx.Graph, changed: set[Node]) -> None:
    """The values that a trace would note, for `changed` and all that follows from it."""
    for node in graph.nodes:
        if node.op != "call_function" or not (node in changed or any(s in changed for s in node.all_input_nodes)):
            continue
        if not node.users:  # a check, or nobody's
            continue
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
        fakes = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if hasattr(leaf, "fake_mode")]
        if not fakes:
            continue
        call: Any = node.target
        with torch.no_grad(), fakes[0].fake_mode:
            node.meta["val"] = call(*args, **kwargs)
        changed.add(node)


def _told(node: Node, values: _Values) -> str:
    where = users_line(node.meta.get("stack_trace") or "") or node.name
    sources = _sources(node)
    learned = next((n.target for n in sources if n.op == "get_attr" and values.of(n) is _UNKNOWN), None)
    if any(n.op == "placeholder" for n in sources):
        of_what = "a tensor that depends on the input"
    else:
        of_what = "a random tensor" if learned is None else f"{learned}, which training changes"
    return f"{where}: reads a number out of {of_what}; compute with the tensor itself (no item, float, tolist)"


def _sources(node: Node) -> list[Node]:
    found: dict[Node, None] = {node: None}
    frontier = [node]
    while frontier:
        for source in frontier.pop().all_input_nodes:
            if source not in found:
                found[source] = None
                frontier.append(source)
    return list(found)
