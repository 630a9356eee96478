from __future__ import annotations

import pytest

from compressor.asking.recipe import Recipe
from compressor.errors import UsageError
from compressor.training.schedule import learning_rate


def _rates(recipe: Recipe, n_steps: int = 4) -> list[float]:
    return [learning_rate(recipe, epoch, step, n_steps) for epoch in range(recipe.epochs) for step in range(n_steps)]


def test_constant_is_constant() -> None:
    assert set(_rates(Recipe(epochs=3, lr=0.5, schedule="constant"))) == {0.5}


def test_cosine_falls_from_the_full_rate_through_half() -> None:
    rates = _rates(Recipe(epochs=4, lr=0.2))
    assert rates[0] == 0.2
    assert rates[8] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.003


def test_cosine_has_a_floor() -> None:
    rates = _rates(Recipe(epochs=4, lr=1.0, min_lr_factor=0.3))
    assert min(rates) == 0.3


def test_cycles_repeat_exactly() -> None:
    rates = _rates(Recipe(epochs=6, cycle_epochs=2, lr=1.0))
    assert rates[:8] == rates[8:16] == rates[16:]
    assert rates[8] == 1.0 > rates[7]


def test_warmup_is_linear_reaches_the_full_rate_and_is_only_in_the_first_cycle() -> None:
    rates = _rates(Recipe(epochs=6, cycle_epochs=3, warmup_epochs=1, lr=1.0))
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[12] == 1.0
    assert rates[12:] == _rates(Recipe(epochs=6, cycle_epochs=3, lr=1.0))[12:]


def test_step_schedule_drops_by_its_factor() -> None:
    rates = _rates(Recipe(epochs=5, schedule="step", step_epochs=2, step_factor=0.1, lr=1.0), n_steps=1)
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_source_with_more_steps_than_told_does_not_run_past_the_epoch() -> None:
    recipe = Recipe(epochs=2, lr=1.0)
    assert learning_rate(recipe, 0, 9, 4) == learning_rate(recipe, 1, 0, 4)


def test_linear_falls_evenly_to_nothing() -> None:
    rates = _rates(Recipe(epochs=2, lr=0.8, schedule="linear"))
    assert rates == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("cycle", [None, 0.5, 1, 2.5])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
def test_every_schedule_but_the_constant_one_falls_in_every_cycle(schedule: str, cycle: float | None) -> None:
    """However short a cycle is: one of half an epoch has no room for a fall every so many epochs."""
    rates = _rates(Recipe(epochs=5, lr=1.0, schedule=schedule, cycle_epochs=cycle), n_steps=12)  # type: ignore[arg-type]
    n = round(12 * (cycle or 5))
    for start in range(0, len(rates), n):
        assert rates[start] == 1.0 and rates[start + n - 1] < 0.4


def test_a_step_that_is_never_reached_is_refused() -> None:
    with pytest.raises(UsageError, match="--lr-step-epochs 3: the rate would never fall; must be less than epochs"):
        Recipe(epochs=10, cycle_epochs=2, schedule="step", step_epochs=3)
    assert _rates(Recipe(epochs=2, schedule="step", step_epochs=0.5, lr=1.0), n_steps=4)[2] == pytest.approx(0.1)
