"""Hyper-parameters of the search: what is refused, and which course follows."""

from __future__ import annotations

import pytest

from compressor.asking import Admm, Recipe
from compressor.asking.penalty import Growing, Steered
from compressor.errors import UsageError


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rho": -1.0}, "--rho -1: must be at least 0"),
        ({"rho": 1.0, "rho_max": 0.5}, "--rho-max 0.5: must be at least --rho"),
        ({"rho": 0.0, "rho_max": 1.0}, "--rho 0: nothing grows from it"),
        ({"settle": 0.0}, "--settle 0: must be above 0"),
        ({"hold": 1.5}, "--hold 1.5: must be from 0 to 1"),
    ],
)
def test_values_that_do_not_go_together_are_refused(said: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Admm(**said)  # type: ignore[arg-type]


def test_the_penalty_follows_the_residual_unless_a_course_is_asked_for() -> None:
    assert isinstance(Admm().course(Recipe()), Steered)
    fixed = Admm(rho=0.01, rho_max=1.0, updates=3).course(Recipe(), n_steps=100)
    assert isinstance(fixed, Growing) and fixed.growth == pytest.approx(10.0)
    nothing = Admm(rho=0.0).course(Recipe())
    assert isinstance(nothing, Growing) and nothing.first == 0.0
