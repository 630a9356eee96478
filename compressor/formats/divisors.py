"""Whether a value of a graph can be -1, the one divisor of whole numbers that ends a process; found without computing.

It must never hold what a call may be given. Where nothing is known of a value, it can be -1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, fx

from compressor.program import arguments, families

Tensors: TypeAlias = Mapping[str, Tensor]
_Rule: TypeAlias = "Callable[[Mapping[str, Any], Tensors], bool]"


def never_minus_one(value: object, tensors: Tensors) -> bool:
    """Whether a number, or every element of a node's result, is always another number."""
    if isinstance(value, (bool, int, float)):
        return value != -1
    if not isinstance(value, fx.Node):
        return False
    if value.op == "get_attr":
        held = tensors.get(str(value.target))
        return held is not None and not bool((held == -1).any())
    if value.op != "call_function":
        return False
    rule = _RULES.get(families.operator_name(value.target).removesuffix("_"))
    return rule is not None and rule(arguments(value), tensors)


def _replaced(given: Mapping[str, Any], tensors: Tensors) -> bool:
    """Another number is put wherever the value is -1."""
    asked = given["mask"]
    if not never_minus_one(given["value"], tensors):
        return False
    filled = given["self"]
    if never_minus_one(filled, tensors) or _asks_for_minus_one(asked, filled):
        return True
    if not isinstance(filled, fx.Node) or families.operator_name(filled.target) != "masked_fill":
        return False
    # filled with other numbers before, it is -1 nowhere else than it was
    return _replaced({**arguments(filled), "mask": asked}, tensors)


def _chosen(given: Mapping[str, Any], tensors: Tensors) -> bool:
    """`where(x == -1, k, x)`, or one of two values that never are -1."""
    first, second = given["self"], given["other"]
    if not never_minus_one(first, tensors):
        return False
    return never_minus_one(second, tensors) or _asks_for_minus_one(given["condition"], second)


def _asks_for_minus_one(mask: object, value: object) -> bool:
    if not isinstance(mask, fx.Node) or mask.op != "call_function" or families.operator_name(mask.target) != "eq":
        return False
    given = arguments(mask)
    return given["self"] is value and given["other"] == -1


def _at_least(given: Mapping[str, Any], _: Tensors) -> bool:
    least = given.get("min")
    return isinstance(least, (int, float)) and least > -1


def _same_numbers(given: Mapping[str, Any], tensors: Tensors) -> bool:
    return never_minus_one(given["self"], tensors)


_RULES: Mapping[str, _Rule] = {
    "masked_fill": _replaced, "where": _chosen, "clamp": _at_least, "clamp_min": _at_least,
    **dict.fromkeys(("abs", "relu"), lambda _, __: True),
    **dict.fromkeys(("reshape", "view", "expand", "unsqueeze", "squeeze", "permute", "transpose"), _same_numbers),
}  # fmt: skip
"""The absolute value of the smallest whole number is that number: below -1, never -1."""
