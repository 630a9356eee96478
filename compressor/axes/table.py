"""The table of axis rules, one per operator overload, and the context a rule speaks to.

It must never hold a rule itself: those live in the `rules_*` modules, one table line each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from torch._ops import OpOverload
from torch.fx import Node

from compressor.asking.walk import WalkOptions
from compressor.axes.ids import Components, Ids, IdSpace, Pin
from compressor.axes.labels import Label, Value, Walked, from_array
from compressor.narrowing import is_dict, is_row
from compressor.program.family import Family, Group, OperatorTable
from compressor.program.unruled import admit

Arguments: TypeAlias = dict[str, Any]
"""An operator's arguments by schema name, with the walked value in place of each node."""

Rule: TypeAlias = "Callable[[Context, Node, Arguments], Walked]"

RULES: OperatorTable[Rule] = OperatorTable("an axis rule")


@dataclass
class Context:
    """What a rule may do: make ids, unite them, pin them. Output sizes are known beforehand.

    `head_splits` names the dimensions of views that are attention heads, `channel_splits` those that become channels;
    rules put the ids of heads into `heads`, and those of dimensions along which all is equal (stretched from size 1,
    constants) into `stretched`. Widths that must not become equal are in `unequal`: torch tells a projected LSTM from a
    plain one by its two widths. What is chosen among, and how many are chosen, is in `choices`. Ids in `whole` get
    their pin if all of them turn out to be one unit: a layer would go with it.
    """

    ids: IdSpace
    out: Any
    node: str = ""
    options: WalkOptions = field(default_factory=WalkOptions)
    unknown: dict[str, int] = field(default_factory=dict[str, int])
    head_splits: Mapping[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    channel_splits: Mapping[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    heads: list[Ids] = field(default_factory=list[Ids])
    stretched: set[int] = field(default_factory=set[int])
    unequal: list[tuple[Ids, Ids]] = field(default_factory=list[tuple[Ids, Ids]])
    choices: list[tuple[Ids, int]] = field(default_factory=list[tuple[Ids, int]])
    whole: list[tuple[Ids, Pin]] = field(default_factory=list[tuple[Ids, Pin]])

    def unite(self, a: Ids, b: Ids) -> None:
        self.ids.unite(a, b, self.node)

    def are_heads(self, label: Label) -> bool:
        """Whether the label stands for whole attention heads, in a walk that keeps them whole."""
        own = set(label.ids.ravel().tolist())
        return any(own.issubset(heads.ravel().tolist()) for heads in self.heads)

    def is_stretched(self, label: Label) -> bool:
        """Whether all is equal along the label: its ids stand for no weights of their own."""
        return self.stretched.issuperset(label.ids.ravel().tolist()) if self.stretched else False

    def pin(self, labels: Label | Iterable[Label], reason: str) -> None:
        for label in (labels,) if isinstance(labels, Label) else labels:
            self.ids.pin(label.ids, reason, self.node)

    def pin_values(self, values: Any, reason: str) -> None:
        """Pin every label of every value in a nested structure, and what its numbers are positions among."""
        if isinstance(values, Value):
            self.pin(values.labels, reason)
            if values.places is not None:
                self.ids.pin(values.places, reason, self.node)
        elif is_dict(values):
            for value in values.values():
                self.pin_values(value, reason)
        elif is_row(values):
            for value in values:
                self.pin_values(value, reason)

    def pinned_ids(self, n: int, reason: str) -> Ids:
        """`n` fresh ids that may not be removed."""
        ids = self.ids.new(n)
        self.ids.pin(ids, reason, self.node)
        return ids

    def resolve(self) -> Components:
        """All components, with what is pinned because it is one unit."""
        found = self.ids.resolve()
        one = [(ids, pin) for ids, pin in self.whole if found.is_one_unit(ids)]
        for ids, pin in one:
            self.ids.pin(ids, pin.reason, pin.node)
        return self.ids.resolve() if one else found

    def label_of(self, ids: Ids, zero: bool, reason: str) -> tuple[Label, ...]:
        """The label of an array of ids as a tuple; when nothing varies any more the ids are pinned with `reason`."""
        label = from_array(ids, zero)
        if label is None:
            if ids.size:
                self.ids.pin(np.ascontiguousarray(ids), reason, self.node)
            return ()
        return (label,)


def rule(*operators: Family | Group | OpOverload) -> Callable[[Rule], Rule]:
    """Register an axis rule for operator families or single overloads; a second rule for one operator is an error.

    Raises:  ValueError if an overload already has a rule.
    """
    for one in operators:
        for overload in (one,) if isinstance(one, OpOverload) else one:
            admit(overload)
    return RULES.register(*operators)


def values_in(arguments: Any) -> list[Value]:
    """Every walked tensor in a nested structure of arguments, in order."""
    if isinstance(arguments, Value):
        return [arguments]
    parts = arguments.values() if is_dict(arguments) else arguments if is_row(arguments) else ()
    return [value for part in parts for value in values_in(part)]
