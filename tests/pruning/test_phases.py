"""The plan of a run, and the ratios on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.asking import Admm, PruneSettings, Recipe
from compressor.asking.penalty import Growing
from compressor.errors import UsageError
from compressor.pruning.phases import plan, step_ratios

FIRST, LAST = Recipe(epochs=2), Recipe(epochs=3)


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
    one = PruneSettings(ratio=4, method="magnitude", prune_recipe=FIRST, retrain_recipe=LAST)
    assert described(one) == [("prune + retrain", "masked", 4, LAST)]
    two = PruneSettings(ratio=4, method="magnitude", steps=2, prune_recipe=FIRST, retrain_recipe=LAST)
    assert described(two) == [("step 1/2", "masked", 2, FIRST), ("step 2/2", "masked", 4, LAST)]


def test_admm_draws_then_cuts_then_retrains() -> None:
    one = PruneSettings(ratio=9, prune_recipe=FIRST, retrain_recipe=LAST)
    assert described(one) == [
        ("admm", "search", 9, FIRST),
        ("hard prune", "masked", 9, None),
        ("retrain", "masked", 9, LAST),
    ]
    assert described(PruneSettings(ratio=9)) == [("hard prune", "masked", 9, None)]
    staged = PruneSettings(ratio=9, admm=Admm(stages=2), prune_recipe=FIRST, retrain_recipe=LAST)
    assert described(staged) == [
        ("admm 1/2", "search", 3, FIRST),
        ("hard prune 1/2", "masked", 3, None),
        ("admm 2/2", "search", 9, FIRST),
        ("hard prune 2/2", "masked", 9, None),
        ("retrain", "masked", 9, LAST),
    ]


def test_group_lasso_goes_the_same_way() -> None:
    of_admm, of_lasso = (
        described(PruneSettings(ratio=9, method=method, prune_recipe=FIRST, retrain_recipe=LAST))
        for method in ("admm", "group-lasso")
    )
    assert [("admm" if name == "group-lasso" else name, *rest) for name, *rest in of_lasso] == of_admm


def test_stages_may_be_retrained_between() -> None:
    staged = PruneSettings(ratio=9, admm=Admm(stages=2), prune_recipe=FIRST, stage_recipe=LAST)
    assert [p.name for p in plan(staged)] == [
        "admm 1/2", "hard prune 1/2", "retrain 1/2", "admm 2/2", "hard prune 2/2",
    ]  # fmt: skip
    assert plan(staged)[2].recipe == LAST and plan(staged)[2].ratio == 3
    assert all(phase.recipe is None for phase in plan(staged.untrained()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 1.0}, "--ratio 1: a ratio is dense ÷ kept and must be above 1"),
        ({"ratio": float("nan")}, "--ratio nan: must be a number"),
        ({"method": "magic"}, "--method magic: choose one of admm, group-lasso"),
        ({"pattern": "rows"}, "--pattern rows: no such pattern; choose one of"),
        ({"pattern": "filter+2:4"}, "these do not combine"),
        ({"pattern": "2:4", "ratio": 3.0}, "--pattern 2:4: means --ratio 2.00x of the layers it fits; leave --ratio 3"),
        (
            {"pattern": "2:4", "steps": 2},
            "--steps 2: approaches a ratio, and --pattern 2:4 has only one, 2.00x; leave it",
        ),
        ({"pattern": "2:4", "admm": Admm(stages=2)}, "--stages 2: approaches a ratio"),
        ({"pattern": "unstructured", "round_to": 8}, "--round-to 8: --pattern unstructured changes no width"),
        ({"of": "bytes"}, "--of bytes: choose one of params, macs"),
        ({"allocation": "fair"}, "--allocation fair: choose one of"),
        ({"schedule": "linear"}, "--schedule linear: choose one of"),
        ({"steps": 0}, "--steps 0: must be at least 1"),
        ({"floor": 1.0}, "--floor 1: must be from 0 to below 1"),
    ],
)
def test_settings_that_cannot_be_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PruneSettings(**{"ratio": 2.0, **changes})  # type: ignore[arg-type]


def test_a_pattern_takes_its_usual_spelling() -> None:
    assert PruneSettings(ratio=2.0, pattern="Shape + Channel").pattern.text == "channel+shape"
    assert (
        PruneSettings(ratio=2.0, pattern="head+shape").walk.keep_heads and not PruneSettings(ratio=2.0).walk.keep_heads
    )


def test_growth_reaches_the_limit_at_the_last_update() -> None:
    twenty = Recipe(epochs=20)
    for admm in (Admm(rho_max=1.0), Admm(updates=4, rho_max=1.0), Admm(rho=0.1, rho_max=3.0)):
        course = admm.course(twenty)
        assert isinstance(course, Growing)
        assert admm.rho * course.growth ** (admm.updates - 1) == pytest.approx(course.limit)


def test_the_search_keeps_its_course_of_the_rate() -> None:
    """One course over the stage: rates that start anew at every update threw the weights out again."""
    for recipe in (Recipe(epochs=6), Recipe(epochs=6, warmup_epochs=2), Recipe(epochs=6, cycle_epochs=3)):
        assert plan(PruneSettings(ratio=9, prune_recipe=recipe))[0].recipe == recipe
