"""The rule table: one rule per operator, a row in every docstring, real overloads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compressor.axes import rule
from compressor.axes.ids import IdSpace
from compressor.axes.labels import Label, Value
from compressor.axes.table import RULES, Context, values_in
from compressor.program import unruled
from compressor.program.family import Family
from compressor.program.unruled import known

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


def test_a_rule_makes_its_operators_known_one_by_one_or_as_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unruled, "_own", set())
    several = Family("of a plugin", (aten.linalg_ldl_factor.default, aten.linalg_lu_factor.default))
    added = (*several, aten.linalg_eigvals.default)
    known.cache_clear()
    assert not any(known(overload) or overload in RULES for overload in added)
    try:

        @rule(several, added[-1])
        def nothing(ctx: Any, node: Any, a: Any) -> Value:
            """Nothing passes."""
            return Value(ctx.out.sizes)

        assert all(known(overload) is unruled.UNRULED and RULES[overload] is nothing for overload in added)
    finally:
        for overload in added:
            RULES.pop(overload, None)
        monkeypatch.undo()
        known.cache_clear()


def test_labels_are_pinned_alone_together_and_in_nested_values() -> None:
    ctx = Context(IdSpace(), None, "here")
    one, two, three, free = (Label((0,), ctx.ids.new(2)) for _ in range(4))
    ctx.pin(one, "alone")
    ctx.pin([two], "in a row")
    ctx.pin_values({"a": [3, (Value((2,), (three,)), None)]}, "in a structure")
    found = ctx.ids.resolve()
    pins = found.pin_of[found.component]
    assert [found.pins[pin].reason for pin in pins[:6]] == ["alone"] * 2 + ["in a row"] * 2 + ["in a structure"] * 2
    assert pins[free.ids].tolist() == [-1, -1] and found.pins[0].node == "here"


def test_a_label_is_stretched_when_all_of_its_ids_are() -> None:
    ctx = Context(IdSpace(), None)
    label = Label((0,), ctx.ids.new(2))
    assert not ctx.is_stretched(label)
    ctx.stretched.add(0)
    assert not ctx.is_stretched(label)
    ctx.stretched.update(range(5))
    assert ctx.is_stretched(label)


def test_a_label_stands_for_heads_when_its_ids_are_all_of_one_set() -> None:
    ctx = Context(IdSpace(), None)
    inner, across = Label((0,), np.array([1, 2])), Label((0,), np.array([2, 3]))
    ctx.heads.extend([np.array([[0, 1, 2]]), np.array([3, 4])])
    assert ctx.are_heads(inner) and not ctx.are_heads(across)


def test_ids_along_which_nothing_varies_are_pinned_and_give_no_label() -> None:
    ctx = Context(IdSpace(), None)
    ids = ctx.ids.new(3)
    (label,) = ctx.label_of(ids[:2], False, "never")
    assert label.dims == (0,) and not label.zero
    assert ctx.label_of(ids[2:], True, "no longer varies") == () == ctx.label_of(ids[:0], True, "never")
    found = ctx.ids.resolve()
    assert [found.pins[pin].reason if pin >= 0 else "" for pin in found.pin_of] == ["", "", "no longer varies"]
