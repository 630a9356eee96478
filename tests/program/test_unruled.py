"""Which operators are known: those of the families, what torch tags, what is named, what a plugin has a rule for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._ops import OpOverload

from compressor.axes.table import RULES, rule
from compressor.program import families, unruled
from compressor.program.unruled import NAMES, UNRULED, known

aten = torch.ops.aten


@pytest.fixture
def own_rules_end_with_the_test() -> Iterator[None]:
    rules, own = dict(RULES), set(unruled._own)
    yield
    RULES.clear()
    RULES.update(rules)
    unruled._own.clear()
    unruled._own.update(own)
    known.cache_clear()


def test_every_overload_of_a_family_or_with_an_axis_rule_is_known() -> None:
    listed = {overload for family in families.FAMILIES for overload in family} | set(RULES)
    assert len(listed) > 200
    assert [str(overload) for overload in listed if known(overload) is None] == []
    assert known(aten.conv2d.default) is families.CONV2D


def test_every_name_is_an_operator_here() -> None:
    assert [name for name in NAMES if not hasattr(aten, name)] == []


@pytest.mark.parametrize(
    ("target", "family"),
    [
        (aten.mish.default, families.TAGGED),
        (aten.mish_.default, families.TAGGED),
        (aten.relu_.default, families.RELU),
        (aten.floor_divide_.Tensor, UNRULED),
        (aten.fft_rfft2.default, UNRULED),
        (aten.rand.default, UNRULED),
        (aten.mvlgamma.default, None),
        (aten.polygamma_.default, None),
        (aten.special_laguerre_polynomial_l.n_scalar, None),
        (aten.set_.source_Tensor, None),
        (aten.resize_.default, None),
        (aten._foreach_add.Scalar, None),
        (aten.linalg_ldl_factor_ex.default, None),
    ],
)
def test_what_is_known_and_as_what(target: OpOverload, family: families.Family | None) -> None:
    assert known(target) is family


def test_a_rule_of_a_plugin_makes_its_operator_known(own_rules_end_with_the_test: None) -> None:
    assert known(aten.fft_hfft2.default) is None
    rule(aten.fft_hfft2.default)(lambda ctx, node, given: ctx.out)
    assert known(aten.fft_hfft2.default) is UNRULED
