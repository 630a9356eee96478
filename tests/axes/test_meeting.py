"""How labels of several operands meet: united along shared dimensions, pinned without a partner, 0 where all say so."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.axes.ids import IdSpace
from compressor.axes.labels import Label, Value
from compressor.axes.meeting import NO_PARTNER, ids_along, join, no_partner, unify
from compressor.axes.table import Context


def context() -> Context:
    return Context(IdSpace(), None, "here")


def columns(ctx: Context, n: int, *, dim: int = 1, zero: bool = True) -> Label:
    return Label((dim,), ctx.ids.new(n), zero)


def reasons(ctx: Context) -> list[str]:
    """Why each id may not go, through what it is united with; nothing where it may."""
    found = ctx.ids.resolve()
    pins = [int(pin) for pin in found.pin_of[found.component]]
    return [found.pins[pin].reason if pin >= 0 else "" for pin in pins]


def test_ids_along_a_dimension_are_those_of_all_its_labels_united() -> None:
    ctx = context()
    first, second = columns(ctx, 3), columns(ctx, 3)
    found = ids_along(ctx, Value((2, 3), (first, second)), 1)
    assert found is first.ids and ids_along(ctx, Value((2, 3), (first,)), 0) is None
    assert ctx.ids.resolve().component.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_label_over_two_dimensions_is_pinned_where_one_is_asked_for() -> None:
    ctx = context()
    both = Label((0, 1), ctx.ids.new(6).reshape(2, 3))
    assert ids_along(ctx, Value((2, 3), (both,)), 1) is None
    assert reasons(ctx) == ["varies along several dimensions at once"] * 6


def test_what_has_no_partner_is_pinned_with_the_reason() -> None:
    for turned in (False, True):
        ctx = context()
        ids = ctx.ids.new(2)
        join(ctx, *((None, ids) if turned else (ids, None)), "alone")
        assert reasons(ctx) == ["alone"] * 2
    ctx = context()
    join(ctx, ctx.ids.new(2), ctx.ids.new(2))
    join(ctx, None, None)
    assert ctx.ids.resolve().component.tolist() == [0, 1, 0, 1] and reasons(ctx) == [""] * 4


def test_the_reason_tells_what_is_known_of_the_others() -> None:
    assert no_partner(Value((1,)), Value((1,), why="it is an input")) == f"{NO_PARTNER}: it is an input"
    assert no_partner(Value((1,))) == NO_PARTNER


@pytest.mark.parametrize(("own", "other"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_sum_is_zero_where_both_operands_are_and_a_product_where_one_is(own: bool, other: bool) -> None:
    for rule, expected in ((all, own and other), (any, own or other)):
        ctx = context()
        a, b = columns(ctx, 3, zero=own), columns(ctx, 3, zero=other)
        made = unify(ctx, [Value((2, 3), (a,)), Value((2, 3), (b,))], rule, (2, 3))
        (label,) = made.labels
        assert label.dims == (1,) and label.zero is expected
        assert ctx.ids.resolve().component.tolist() == [0, 1, 2, 0, 1, 2]


def test_an_operand_without_labels_leaves_no_zero_and_pins_unless_it_is_uniform_or_stretched() -> None:
    for other, why in (
        (Value((2, 3)), NO_PARTNER),
        (Value((2, 3), why="it is an input"), f"{NO_PARTNER}: it is an input"),
        (Value((2, 3), uniform=True), ""),
        (Value((2, 1)), ""),
        (Value((1,)), ""),
    ):
        ctx = context()
        made = unify(ctx, [Value((2, 3), (columns(ctx, 3),)), other], all, (2, 3))
        assert not made.labels[0].zero and reasons(ctx) == [why] * 3, other


def test_a_label_over_two_dimensions_needs_partners_along_both() -> None:
    for dims, why in (((0, 1), ""), ((1,), NO_PARTNER)):
        ctx = context()
        both = Label((0, 1), ctx.ids.new(6).reshape(2, 3))
        others = tuple(columns(ctx, size, dim=dim) for dim, size in enumerate((2, 3)) if dim in dims)
        unify(ctx, [Value((2, 3), (both,)), Value((2, 3), others)], all, (2, 3))
        assert reasons(ctx)[:6] == [why] * 6


def test_operands_are_aligned_from_the_right() -> None:
    ctx = context()
    made = unify(
        ctx, [Value((5, 2, 3), (columns(ctx, 3, dim=2),)), Value((3,), (columns(ctx, 3, dim=0),))], all, (5, 2, 3)
    )
    assert [label.dims for label in made.labels] == [(2,)] and made.sizes == (5, 2, 3)
    assert np.unique(ctx.ids.resolve().component).tolist() == [0, 1, 2]
