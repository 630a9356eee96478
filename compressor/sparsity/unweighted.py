"""Units that an operator without weights sums over: no column decides about them; it must never look at weights.

A gate of channel means, a norm over channels, the product of queries and keys: each reads a unit without a column of
its own. What passes a unit on (activations, pooling, splits, concatenation) does not read it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import numpy as np
from torch.fx import Node

from compressor.axes import Ids, Keep, UnitMap, Value, Walked
from compressor.program import CONTRACTIONS, Program, arguments, families, find_layers

_PARTS = families.PARTS | families.INDEX_SELECT | families.INDEX | families.DISPLACE
"""Operators that pass on a part: what is missing behind them is not read, another part has it."""


def read_without_weights(program: Program, units: UnitMap) -> Keep:
    """Shapes: -> (n_units,)"""
    found = np.zeros(units.n_units, dtype=bool)
    contractions = {layer.node for layer in find_layers(program) if layer.kind in CONTRACTIONS}
    values = units.walk.values
    for node in program.module.graph.nodes:
        if node.op != "call_function" or node.name in contractions:
            continue
        operands = families.operands_of(node.target)
        if operands:
            # The last dimension of the first one is summed over. The same unit may come out again by another operand
            # (queries and values of one packed layer), so that what goes in and what comes out do not tell.
            source = arguments(node)[operands[0]]
            value = values.get(source.name) if isinstance(source, Node) else None
            if isinstance(value, Value) and value.rank:
                found[_units(units, [label.ids for label in value.along(value.rank - 1)])] = True
        elif node.target is not operator.getitem and node.target not in _PARTS:
            read = _units(units, [ids for source in node.all_input_nodes for ids in _ids(values.get(source.name))])
            found[np.setdiff1d(read, _units(units, list(_ids(values.get(node.name)))))] = True
    return found


def _units(units: UnitMap, ids: list[Ids]) -> Ids:
    if not ids:
        return np.zeros(0, dtype=np.int64)
    every = np.unique(np.concatenate([units.of_ids(part).ravel() for part in ids]))
    return every[every >= 0]


def _ids(walked: Walked) -> Iterator[Ids]:
    if isinstance(walked, Value):
        yield from (label.ids for label in walked.labels)
    elif isinstance(walked, tuple):
        for part in walked:
            yield from _ids(part)
