"""Ids of single indices, which of them belong together, and which may not go; it must never know what they index.

A union-find that is filled lazily: rules only append edges, and `resolve` finds all components in one vectorised
pass. That keeps a walk linear in the graph, and it keeps every edge with the operator that made it, so that
`--explain` can say why two things are coupled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]


PASSABLE = "(--through-norm)"
"""What the reason of a pin ends with that `WalkOptions.through_norm` may lift."""


@dataclass(frozen=True)
class Pin:
    """Why ids may not be removed, and at which node that was found."""

    reason: str
    node: str

    @property
    def is_passable(self) -> bool:
        return self.reason.endswith(PASSABLE)


@dataclass(frozen=True)
class Edge:
    """Ids that `node` makes inseparable, pairwise: `a[i]` with `b[i]`."""

    a: Ids
    b: Ids
    node: str


@dataclass(frozen=True)
class Components:
    """The resolved ids: `component[id]` counts from 0; `pin_of[component]` indexes `pins`, or is -1 when free.

    `pinned[i]` are the ids that `pins[i]` was said of.
    """

    component: Ids
    n_components: int
    pin_of: Ids
    pins: tuple[Pin, ...]
    edges: tuple[Edge, ...]
    pinned: tuple[Ids, ...] = ()

    def is_one_unit(self, ids: Ids) -> bool:
        """Whether all of `ids` are one component, and a free one."""
        found = self.component[ids]
        return bool((found == found[0]).all()) and bool(self.pin_of[found[0]] < 0)


@dataclass
class IdSpace:
    """Hands out ids and collects what is said about them."""

    n_ids: int = 0
    edges: list[Edge] = field(default_factory=list[Edge])
    pinned: list[tuple[Ids, Pin]] = field(default_factory=list[tuple[Ids, Pin]])
    _is_pinned: bytearray = field(default_factory=bytearray)

    def new(self, n: int) -> Ids:
        """`n` fresh ids that belong to nothing yet."""
        first = self.n_ids
        self.n_ids += n
        self._is_pinned.extend(bytes(n))
        return np.arange(first, self.n_ids, dtype=np.int64)

    def unite(self, a: Ids, b: Ids, node: str) -> None:
        """Make `a` and `b`, broadcast against each other, inseparable element by element."""
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        self.edges.append(Edge(a.ravel(), b.ravel(), node))

    def pin(self, ids: Ids, reason: str, node: str) -> None:
        """Forbid the removal of `ids` and of everything they are united with, before or after."""
        self.pinned.append((ids.ravel(), Pin(reason, node)))
        if ids.size:
            np.frombuffer(self._is_pinned, dtype=np.uint8)[ids.ravel()] = 1

    def all_pinned(self, ids: Ids) -> bool:
        """Whether each of `ids` has been pinned by itself (not only through what it is united with)."""
        return not ids.size or bool(np.frombuffer(self._is_pinned, dtype=np.uint8)[ids.ravel()].all())

    def resolve(self) -> Components:
        """All components, and for each pinned one the first reason that was given."""
        parent = np.arange(self.n_ids, dtype=np.int64)
        if self.edges:
            a = np.concatenate([edge.a for edge in self.edges])
            b = np.concatenate([edge.b for edge in self.edges])
            parent = _connected(parent, a, b)
        roots, component = np.unique(parent, return_inverse=True)
        pin_of = np.full(len(roots), -1, dtype=np.int64)
        for i, (ids, _) in reversed(list(enumerate(self.pinned))):
            pin_of[component[ids]] = i
        pins = tuple(pin for _, pin in self.pinned)
        pinned = tuple(ids for ids, _ in self.pinned)
        return Components(component.astype(np.int64), len(roots), pin_of, pins, tuple(self.edges), pinned)


def _connected(parent: Ids, a: Ids, b: Ids) -> Ids:
    """Smallest id of each component, by hooking larger roots under smaller ones and jumping pointers."""
    while True:
        root_a, root_b = parent[a], parent[b]
        apart = root_a != root_b
        if not apart.any():
            return parent
        a, b, root_a, root_b = a[apart], b[apart], root_a[apart], root_b[apart]
        np.minimum.at(parent, np.maximum(root_a, root_b), np.minimum(root_a, root_b))
        while True:
            jumped = parent[parent]
            if np.array_equal(jumped, parent):
                break
            parent = jumped
