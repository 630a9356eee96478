"""The plan of a run, and the ratios on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.pruning import Admm, PruneSettings
from compressor.pruning.phases import plan, step_ratios
from compressor.training import Recipe

FIRST, LAST = Recipe(epochs=2), Recipe(epochs=3)
RESET = Recipe(epochs=2, cycle_epochs=0.05)
"""ADMM: the learning rate starts anew at every update of Z and U."""


@given(st.floats(1.01, 500), st.integers(1, 12), st.sampled_from(("geometric", "cubic")))
def test_ratios_grow_to_exactly_what_was_asked(ratio: float, steps: int, schedule: str) -> None:
    ratios = step_ratios(ratio, steps, schedule)
    assert len(ratios) == steps and ratios[-1] == ratio
    assert all(a < b * (1 + 1e-12) for a, b in zip((1.0, *ratios), ratios, strict=False))


def test_geometric_is_equal_factors_and_cubic_is_zhu_and_gupta() -> None:
    assert step_ratios(8, 3, "geometric") == pytest.approx((2, 4, 8))
    sparsities = [1 - 1 / r for r in step_ratios(4, 4, "cubic")]
    assert sparsities == pytest.approx([0.75 * (1 - (1 - t / 4) ** 3) for t in range(1, 5)])


def described(settings: PruneSettings) -> list[tuple[str, str, float, Recipe | None]]:
    return [(p.name, p.kind, round(p.ratio, 6), p.recipe) for p in plan(settings)]


def test_magnitude_cuts_and_retrains_in_steps() -> None:
    one = PruneSettings(4, method="magnitude", prune_recipe=FIRST, retrain_recipe=LAST)
    assert described(one) == [("prune + retrain", "masked", 4, LAST)]
    two = PruneSettings(4, method="magnitude", steps=2, prune_recipe=FIRST, retrain_recipe=LAST)
    assert described(two) == [("step 1/2", "masked", 2, FIRST), ("step 2/2", "masked", 4, LAST)]


def test_admm_draws_then_cuts_then_retrains() -> None:
    one = PruneSettings(9, prune_recipe=FIRST, retrain_recipe=LAST)
    assert described(one) == [
        ("admm", "admm", 9, RESET),
        ("hard prune", "masked", 9, None),
        ("retrain", "masked", 9, LAST),
    ]
    assert described(PruneSettings(9)) == [("hard prune", "masked", 9, None)]
    staged = PruneSettings(9, admm=Admm(stages=2), prune_recipe=FIRST, retrain_recipe=LAST)
    assert described(staged) == [
        ("admm 1/2", "admm", 3, RESET),
        ("hard prune 1/2", "masked", 3, None),
        ("admm 2/2", "admm", 9, RESET),
        ("hard prune 2/2", "masked", 9, None),
        ("retrain", "masked", 9, LAST),
    ]


def test_stages_may_be_retrained_between() -> None:
    staged = PruneSettings(9, admm=Admm(stages=2), prune_recipe=FIRST, stage_recipe=LAST)
    assert [p.name for p in plan(staged)] == [
        "admm 1/2", "hard prune 1/2", "retrain 1/2", "admm 2/2", "hard prune 2/2",
    ]  # fmt: skip
    assert plan(staged)[2].recipe == LAST and plan(staged)[2].ratio == 3
    assert all(phase.recipe is None for phase in plan(staged.untrained()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 1.0}, "--ratio 1: a ratio is dense ÷ kept and must be above 1"),
        ({"ratio": float("nan")}, "must be above 1"),
        ({"method": "magic"}, "--method magic: choose one of magnitude, admm"),
        ({"pattern": "rows"}, "--pattern rows: no such pattern; choose one of"),
        ({"pattern": "filter+2:4"}, "these do not combine"),
        ({"pattern": "2:4", "ratio": 3.0}, "--pattern 2:4: means --ratio 2.00x of the layers it fits; leave --ratio 3"),
        ({"pattern": "2:4", "steps": 2}, "--pattern 2:4: has one ratio, so --steps and --stages must be 1"),
        ({"pattern": "2:4", "admm": Admm(stages=2)}, "has one ratio"),
        ({"pattern": "unstructured", "round_to": 8}, "--round-to 8: --pattern unstructured changes no width"),
        ({"of": "bytes"}, "--of bytes: choose one of params, macs"),
        ({"allocation": "fair"}, "--allocation fair: choose one of"),
        ({"schedule": "linear"}, "--schedule linear: choose one of"),
        ({"steps": 0}, "--steps 0: must be at least 1"),
        ({"floor": 1.0}, "--floor 1: the share of each layer that always stays"),
    ],
)
def test_settings_that_cannot_be_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PruneSettings(**{"ratio": 2.0, **changes})  # type: ignore[arg-type]


def test_a_recipe_that_sets_its_own_cycle_keeps_it() -> None:
    own = Recipe(epochs=6, cycle_epochs=3)
    assert plan(PruneSettings(9, prune_recipe=own))[0].recipe == own
    eight = PruneSettings(9, prune_recipe=FIRST, admm=Admm(updates=8))
    assert plan(eight)[0].recipe == Recipe(epochs=2, cycle_epochs=0.25)


def test_a_warm_up_longer_than_an_update_stretches_the_cycle() -> None:
    recipe = plan(PruneSettings(9, prune_recipe=Recipe(epochs=6, warmup_epochs=2)))[0].recipe
    assert recipe is not None and (recipe.warmup_epochs, recipe.cycle_epochs) == (2, 3)


def test_a_pattern_takes_its_usual_spelling() -> None:
    assert PruneSettings(2.0, pattern="Shape + Channel").pattern == "channel+shape"
    assert PruneSettings(2.0, pattern="head+shape").walk.keep_heads and not PruneSettings(2.0).walk.keep_heads


def test_growth_reaches_the_limit_at_the_last_update() -> None:
    twenty = Recipe(epochs=20)
    for admm, n_updates in ((Admm(), 40), (Admm(updates=4), 4), (Admm(rho=0.1, rho_max=3.0), 40)):
        growth, limit = admm.course(twenty)
        assert admm.rho * growth ** (n_updates - 1) == pytest.approx(limit)
    assert Admm(updates=1).course(twenty)[0] == 1.0 and Admm(rho_growth=1.3).course(twenty)[0] == 1.3


def test_the_usual_limit_follows_the_steps_and_is_stable_under_sgd() -> None:
    def sgd(lr: float) -> Recipe:
        return Recipe(epochs=20, optimizer="sgd", lr=lr)

    usual = Admm().course(Recipe())[1]
    assert Admm().course(Recipe(), 2000)[1] == usual and Admm().course(Recipe(), 40_000)[1] == pytest.approx(0.1)
    assert Admm().course(Recipe(), 10**10)[1] == Admm().rho, "never below the first penalty"
    assert Admm().course(sgd(1e-3))[1] == usual and Admm().course(sgd(5.0))[1] == pytest.approx(0.1)
    assert Admm(rho_max=7.0).course(sgd(5.0))[1] == 7.0 and Admm(rho=0.5).course(sgd(5.0))[1] == 0.5
