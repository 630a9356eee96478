"""Attention of positions that may see none, in a file; it must never change what any other position gets.

torch gives such a row of weights as 0, and its exporter writes that as "0 where the softmax is not a number". But what
it hides gets the lowest finite number, not -inf, and the softmax of a row of these is equal shares. A padded text under
a sliding window has such rows. By the mask itself they are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir


def zero_by_the_mask(model: ir.Model) -> None:
    """Weights of attention are 0 where the mask hides, instead of where the softmax is not a number."""
    for node in list(model.graph):
        mask = _mask_of(node)
        if mask is not None:
            guard, zero, weights = node.inputs[0], node.inputs[1], node.inputs[2]
            node.replace_input_with(0, mask)
            node.replace_input_with(1, weights)
            node.replace_input_with(2, zero)
            is_nan = None if guard is None or guard.uses() else guard.producer()
            if is_nan is not None:
                model.graph.remove(is_nan, safe=True)


def _mask_of(node: ir.Node) -> ir.Value | None:
    """What hides, if the node is `Where(IsNaN(w), 0, w)` of a softmax `w` under a mask of booleans."""
    found = _made_by(node, "Where", 0, "IsNaN")
    softmax = _made_by(node, "Where", 2, "Softmax")
    if found is None or softmax is None or found.inputs[0] is not node.inputs[2]:
        return None
    added = _made_by(softmax, "Softmax", 0, "Add")
    hidden = None if added is None else _made_by(added, "Add", 1, "Where")
    if hidden is None or not _is(hidden.inputs[1], 0) or not _is_lowest(hidden.inputs[2]):
        return None
    return hidden.inputs[0]


def _made_by(node: ir.Node, kind: str, place: int, maker: str) -> ir.Node | None:
    value = node.inputs[place] if node.op_type == kind and len(node.inputs) > place else None
    made = None if value is None else value.producer()
    return made if made is not None and made.op_type == maker else None


def _is(value: ir.Value | None, number: float) -> bool:
    constant = _number(value)
    return constant is not None and float(constant) == number


def _is_lowest(value: ir.Value | None) -> bool:
    constant = _number(value)
    return constant is not None and constant <= np.finfo(constant.dtype).min


def _number(value: ir.Value | None) -> Any:
    """A constant of one floating number as NumPy has it."""
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    if constant is None or constant.size != 1:
        return None
    number = constant.numpy().reshape(())[()]
    return number if isinstance(number, np.floating) else None
