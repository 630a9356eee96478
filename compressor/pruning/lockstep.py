"""Two networks of one graph run side by side, a stretch of it at a time; it must never change a tensor of either.

Layers are met in groups that do not wait for each other's new weights (queries, keys, values). All batches pass a group
before the next, and what is held between is what later operators need where the graph is narrow: for each group a
stretch is run again from there, one batch after another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from torch.fx import Node

from compressor.errors import UsageError
from compressor.program import Program, TensorShape, families, is_same_graph
from compressor.program import arguments as arguments_of

_ROOM = 256 << 20
"""What may be held of all batches where the graph is cut, without looking for a narrower place. Units: bytes."""
_MOST = 8
"""Layers of one stretch: the more there are, the more often its beginning is run."""


@dataclass(frozen=True)
class Met:
    """What a layer meets in one batch: its input in the pruned and in the dense network, and the dense answer."""

    batch: int
    node: Node
    x: Tensor
    dense_x: Tensor
    wanted: Tensor


@dataclass(frozen=True)
class _Stretch:
    """Nodes from `first` up to `end`, and the groups of layers that lie there."""

    first: int
    end: int
    groups: tuple[tuple[Node, ...], ...]


class Lockstep:
    """Iterates over groups of `layers`, in graph order; between two of them the weights of the first may be changed.

    Raises:  UsageError if the two graphs differ (the pruned one is compact already).
    """

    def __init__(
        self, program: Program, dense: Program, batches: Sequence[Sequence[Tensor]], layers: Sequence[Node],
        room: int = _ROOM,
    ) -> None:  # fmt: skip
        if not is_same_graph(program.module, dense.module):
            raise UsageError("--reconstruct: the dense model has another graph; reconstruct before compact, not after")
        self._nodes = list(program.module.graph.nodes)
        self._twin = dict(zip(self._nodes, dense.module.graph.nodes, strict=True))
        self._pruned, self._dense = fx.Interpreter(program.module), fx.Interpreter(dense.module)
        n_samples = sum(len(batch[0]) for batch in batches)
        self._stretches = _stretches(program, layers, n_samples, room)
        self._first = 0
        given = [node for node in self._nodes if node.op == "placeholder"]
        self._held: list[tuple[dict[Node, Any], dict[Node, Any]]] = []
        for batch in batches:
            mine: dict[Node, Any] = dict(zip(given, batch, strict=True))
            self._held.append((mine, {self._twin[node]: value for node, value in mine.items()}))
        self._freed: dict[Node, list[Node]] = {}
        last_use = {source: node for node in self._nodes for source in node.all_input_nodes}
        for source, node in last_use.items():
            self._freed.setdefault(node, []).append(source)

    def __iter__(self) -> Iterator[tuple[Node, ...]]:
        for number, stretch in enumerate(self._stretches):
            self._first = stretch.first
            yield from stretch.groups
            if number + 1 < len(self._stretches):
                for batch in range(len(self._held)):
                    self._held[batch] = self._passed(batch, stretch.end)

    def met(self, group: Sequence[Node]) -> Iterator[Met]:
        """What each layer of the group meets, batch by batch."""
        last = max(map(self._nodes.index, group))
        for batch in range(len(self._held)):
            self._begin(batch)
            for node in self._nodes[self._first : last + 1]:
                self._step(self._dense, self._twin[node])
                if node in group:
                    source = operand(node)
                    mine, its = self._pruned.env[source], self._dense.env[self._twin[source]]
                    yield Met(batch, node, mine, its, self._dense.env[self._twin[node]])
                if node is not self._nodes[last]:
                    self._step(self._pruned, node)
                    self._free(node)
        self._pruned.env, self._dense.env = {}, {}

    def _passed(self, batch: int, end: int) -> tuple[dict[Node, Any], dict[Node, Any]]:
        """What is left of both networks behind a stretch."""
        self._begin(batch)
        for node in self._nodes[self._first : end]:
            self._step(self._dense, self._twin[node])
            self._step(self._pruned, node)
            self._free(node)
        return self._pruned.env, self._dense.env

    def _begin(self, batch: int) -> None:
        mine, its = self._held[batch]
        self._pruned.env, self._dense.env = dict(mine), dict(its)

    @staticmethod
    def _step(run: fx.Interpreter, node: Node) -> None:
        if node.op != "placeholder":
            run.env[node] = run.run_node(node)

    def _free(self, node: Node) -> None:
        """What nobody needs behind this node, itself where nobody does."""
        for source in (*self._freed.get(node, ()), *(() if node.users else (node,))):
            del self._pruned.env[source], self._dense.env[self._twin[source]]


def operand(node: Node) -> Node:
    """What the weights of a layer are multiplied by."""
    found = arguments_of(node)[next(iter(families.operands_of(node.target)), "input")]
    assert isinstance(found, Node)
    return found


def _stretches(program: Program, layers: Sequence[Node], n_samples: int, room: int) -> list[_Stretch]:
    """Cut behind a layer where the values of all samples have room, else at the narrowest of the last few places."""
    nodes = list(program.module.graph.nodes)
    live = _live_bytes(program, nodes)
    places = [nodes.index(node) for node in layers]
    # Between a layer and the next: where least is alive.
    narrow = [min(range(a, b), key=live.__getitem__) for a, b in itertools.pairwise(places)]
    cuts: list[int] = []
    waiting: list[int] = []
    for place in narrow:
        waiting.append(place)
        if live[place] * n_samples <= room:
            cuts, waiting = [*cuts, place], []
        elif len(waiting) == _MOST:
            best = min(waiting, key=live.__getitem__)
            cuts, waiting = [*cuts, best], [other for other in waiting if other > best]
    ends = [*(cut + 1 for cut in cuts), len(nodes)]
    found: list[_Stretch] = []
    for first, end in zip([0, *ends], ends, strict=False):
        mine = [node for node, place in zip(layers, places, strict=True) if first <= place < end]
        found.append(_Stretch(first, end, tuple(_groups(nodes[first:end], mine))))
    return found


def _groups(nodes: Sequence[Node], layers: Sequence[Node]) -> Iterator[tuple[Node, ...]]:
    """Layers, in order, until one that another of them reaches."""
    group: list[Node] = []
    waits: set[Node] = set()
    for node in nodes:
        if node in layers:
            if node in waits or not waits.isdisjoint(node.all_input_nodes):
                yield tuple(group)
                group, waits = [], set()
            group.append(node)
            waits.add(node)
        elif not waits.isdisjoint(node.all_input_nodes):
            waits.add(node)
    if group:
        yield tuple(group)


def _live_bytes(program: Program, nodes: Sequence[Node]) -> list[float]:
    """What is held of one sample behind each node, in both networks. Units: bytes."""
    last = {source: i for i, node in enumerate(nodes) for source in node.all_input_nodes}
    change = [0.0] * (len(nodes) + 1)
    for i, node in enumerate(nodes):
        if node.op != "get_attr" and node in last:
            size = 2 * _bytes(program.shapes.get(node.name)) / program.sampled_batch
            change[i] += size
            change[last[node]] -= size
    alive, found = 0.0, list[float]()
    for more in change[:-1]:
        alive += more
        found.append(alive)
    return found


def _bytes(shape: object) -> float:
    if isinstance(shape, tuple):
        return sum(map(_bytes, shape))
    if not isinstance(shape, TensorShape):
        return 0.0
    n = 1
    for size in shape.sizes:
        n *= size
    return float(n * shape.dtype.itemsize)
