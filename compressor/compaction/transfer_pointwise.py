"""Transfers of operators that work element by element: a result is known where all operands are.

It must never hold operators that move or mix positions.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch.fx import Node

from compressor.compaction.constants import Arguments, Constants, Found, Pair, run, stretch, tensors_in, transfer
from compressor.program import families

_FIRST_ONLY = frozenset({"to", "type_as", "clone", "contiguous", "detach", "_to_copy", "positive"})
_MODES = ("train", "training")


def element_by_element(node: Node, a: Arguments, out: Any) -> Found:
    """Known where all operands are."""
    name = families.operator_name(node.target)
    if any(mode in a for mode in _MODES):
        first = tensors_in(a)[0]
        return None if any(a.get(mode) for mode in _MODES) or name == "rrelu" else Pair(first.exact, first.known)
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return None
    operands = tensors_in(a)[:1] if name in _FIRST_ONLY else tensors_in(a)
    if node.target in families.FILLED_LIKE:
        return Pair(run(node, a, lambda c: c.exact), torch.ones((1,) * len(out.sizes), dtype=torch.bool))
    if not all(operand.any_known for operand in operands):
        return None
    known = reduce(torch.logical_and, (operand.known for operand in operands))
    return Pair(run(node, a, lambda c: c.exact), known)


@transfer(families.MUL)
def product(node: Node, a: Arguments, out: Any) -> Found:
    """Known where both factors are, and where one is known to be 0: every activation is taken to be finite."""
    x, y = a["self"], a["other"]
    if not isinstance(x, Constants) or not isinstance(y, Constants):
        return element_by_element(node, a, out)
    if not x.any_known and not y.any_known:
        return None
    return Pair(x.exact * y.exact, (x.known & y.known) | x.is_zero | y.is_zero)


@transfer(families.PRELU)
def prelu(node: Node, a: Arguments, out: Any) -> Found:
    """Known where the operand is; the slope belongs to dimension 1."""
    x = a["self"]
    if not x.any_known or not a["weight"].all_known:
        return None
    made = run(node, a, lambda c: stretch(c.exact, c.sizes, [min(1, c.rank - 1)]) if c is x else c.exact)
    return Pair(made, x.known)
