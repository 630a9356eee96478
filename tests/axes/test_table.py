"""The rule table: one rule per operator, a row in every docstring, real overloads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.axes import rule
from compressor.axes.labels import Value
from compressor.axes.table import RULES, values_in

aten = torch.ops.aten


def test_a_second_rule_for_an_operator_is_an_error() -> None:
    before = RULES[aten.conv2d.default]
    with pytest.raises(ValueError, match=r"aten\.conv2d\.default already has an axis rule"):

        @rule(aten.conv2d.default)
        def other(ctx: Any, node: Any, a: Any) -> None:
            """A row."""

    assert RULES[aten.conv2d.default] is before


def test_a_first_rule_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    overload = aten.linalg_matrix_exp.default
    assert overload not in RULES
    try:

        @rule(overload)
        def exponential(ctx: Any, node: Any, a: Any) -> Value:
            """Nothing passes."""
            return Value(ctx.out.sizes)

        assert RULES[overload].__name__ == "exponential"
    finally:
        RULES.pop(overload, None)


def test_rules_are_of_real_overloads_and_described_in_one_row() -> None:
    for overload, function in RULES.items():
        assert isinstance(overload, torch._ops.OpOverload), overload
        assert (function.__doc__ or "").strip(), function.__name__


def test_values_are_found_in_nested_arguments_in_order() -> None:
    a, b, c = Value((1,)), Value((2,)), Value((3,))
    assert values_in({"x": a, "n": 3, "more": [b, (c, None)]}) == [a, b, c]
