"""The verdict on made-up samples: right where there is a difference, silent where there is none."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from compressor.timing.statistics import FEWEST_ROUNDS, compare, count_outliers, median_interval, summarise, tail_share


def latencies(rng: np.random.Generator, median_s: float, n: int = 300, spread: float = 0.05) -> np.ndarray:
    """Skewed to the right, as latencies are. Shapes: -> (n,)"""
    return median_s * np.exp(spread * rng.standard_normal(n)) + median_s * 0.1 * rng.exponential(size=n)


def test_summary_of_known_samples() -> None:
    summary = summarise(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert (summary.n_runs, summary.median_s, summary.min_s, summary.mad_s) == (5, 3.0, 1.0, 1.0)
    assert summary.mean_s == 22.0 and summary.n_outliers == 1
    assert summary.p90_s == pytest.approx(61.6) and summary.p99_s == pytest.approx(96.16)


def test_outliers_are_far_from_the_median_in_units_of_the_mad() -> None:
    samples = np.array([9.0, 10.0, 11.0, 10.0, 9.0, 11.0, 20.0, 21.0])
    assert count_outliers(samples) == 2
    assert count_outliers(samples[:6]) == 0
    assert count_outliers(np.array([1.0, 1.0, 1.0, 50.0])) == 0


def test_equal_models_are_no_different_in_almost_every_run() -> None:
    rng = np.random.default_rng(0)
    verdicts = [compare(latencies(rng, 1e-3), latencies(rng, 1e-3), rng).verdict for _ in range(60)]
    assert verdicts.count("no difference") >= 54


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, "faster"), (1.05, "faster"), (0.8, "slower")])
def test_a_difference_is_found_and_its_interval_holds_it(factor: float, verdict: str) -> None:
    rng = np.random.default_rng(1)
    found = compare(latencies(rng, 1e-3), latencies(rng, 1e-3 / factor), rng)
    assert found.verdict == verdict
    assert found.low < factor < found.high
    assert found.low <= found.speedup <= found.high


def test_a_sure_difference_below_one_percent_is_none() -> None:
    samples = np.linspace(1.0, 1.001, 200)
    found = compare(samples, samples / 1.005, np.random.default_rng(0))
    assert found.low > 1 and found.verdict == "no difference"


def test_too_few_rounds_have_no_verdict() -> None:
    few = np.ones(FEWEST_ROUNDS - 1)
    assert compare(few, few / 2, np.random.default_rng(0)).verdict == "no difference"
    enough = np.ones(FEWEST_ROUNDS)
    assert compare(enough, enough / 2, np.random.default_rng(0)).verdict == "faster"


def test_drift_that_both_share_does_not_hide_the_difference() -> None:
    rng = np.random.default_rng(2)
    drift = np.linspace(1.0, 2.0, 300)
    found = compare(latencies(rng, 1e-3) * drift, latencies(rng, 0.9e-3) * drift, rng)
    assert found.verdict == "faster"


def test_luck_of_one_opening_is_no_difference_when_openings_are_known() -> None:
    rng = np.random.default_rng(3)
    opening = np.repeat(np.arange(10), 40)
    luck = 1 + 0.05 * rng.standard_normal(10)
    a, b = latencies(rng, 1e-3, 400, 0.005), latencies(rng, 1e-3, 400, 0.005) * luck[opening]
    known, unknown = compare(a, b, rng, opening), compare(a, b, rng)
    assert known.verdict == "no difference"
    assert known.high - known.low > 2 * (unknown.high - unknown.low)


@pytest.mark.parametrize(("n", "z"), [(1, 1.96), (2, 17.97), (3, 5.27), (12, 2.299), (40, 2.23)])
def test_few_openings_make_the_interval_wider(n: int, z: float) -> None:
    """z = t·√(n/(n − 1)), as Hesterberg's table has it; one opening, and many, stay near the normal's 1.96."""
    assert tail_share(n) == pytest.approx(NormalDist().cdf(-z), rel=0.03, abs=1e-12)


def test_four_openings_of_equal_models_are_no_difference() -> None:
    """The plain percentiles call one in six of these a difference."""
    rng = np.random.default_rng(6)
    opening = np.repeat(np.arange(4), 25)
    verdicts: list[str] = []
    for _ in range(60):
        luck = 1 + 0.03 * rng.standard_normal((2, 4))
        a, b = (latencies(rng, 1e-3, 100, 0.01) * luck[i][opening] for i in range(2))
        verdicts.append(compare(a, b, rng, opening).verdict)
    assert verdicts.count("no difference") >= 55


def test_the_median_has_an_interval_too() -> None:
    rng = np.random.default_rng(9)
    samples = latencies(rng, 1e-3, 400)
    low, high = median_interval(samples, rng)
    assert low < np.median(samples) < high and high - low < 0.05e-3
    opening = np.repeat(np.arange(10), 40)
    wide = median_interval(samples * (1 + 0.05 * rng.standard_normal(10))[opening], rng, opening)
    assert wide[1] - wide[0] > 2 * (high - low)


def test_resampling_reaches_every_round_of_unequal_openings() -> None:
    opening = np.array([0] * 10 + [1] * 90)
    a = np.where(opening == 0, 3.0, 1.0)
    found = compare(a, np.ones(100), np.random.default_rng(0), opening)
    assert (found.low, found.high) == (1.0, 3.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(4)
    a, b = latencies(rng, 1e-3), latencies(rng, 1e-3)
    first, second = (compare(a, b, np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert compare(a, b, np.random.default_rng(8)) != first


def test_long_series_are_resampled_in_parts() -> None:
    rng = np.random.default_rng(5)
    found = compare(latencies(rng, 1e-3, 4000), latencies(rng, 0.5e-3, 4000), rng)
    assert found.verdict == "faster" and found.speedup == pytest.approx(2.0, rel=0.05)


def test_samples_must_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="in pairs"):
        compare(np.ones(3), np.ones(4), np.random.default_rng(0))
    with pytest.raises(ValueError, match="in pairs"):
        compare(np.ones(0), np.ones(0), np.random.default_rng(0))
