"""Rounds, order, openings and the end of a measurement, on a clock that only runners move."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import pytest

from compressor.asking.bench import Plan
from compressor.timing.measure import BLOCK_S, Runner, Samples, copied_s, measure, order


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Fake:
    """Takes a fixed time per inference and writes down who ran."""

    def __init__(self, name: str, each_s: float, clock: Clock, log: list[tuple[str, int]]) -> None:
        self.name, self.each_s, self.clock, self.log = name, each_s, clock, log

    def block(self, n_inner: int) -> float:
        self.log.append((self.name, n_inner))
        self.clock.now_s += n_inner * self.each_s
        return n_inner * self.each_s


def run(
    plan: Plan,
    *each_s: float,
    opening_s: float = 0.0,
    on_round: Callable[[int, float], None] | None = None,
) -> tuple[Samples, list[tuple[str, int]], Clock]:
    clock, log = Clock(), list[tuple[str, int]]()

    def open_runners() -> Sequence[Runner]:
        clock.now_s += opening_s
        log.append(("open", 0))
        return [Fake("abc"[i], each, clock, log) for i, each in enumerate(each_s)]

    return measure(open_runners, plan, on_round=on_round, clock=clock), log, clock


def test_samples_are_seconds_per_inference() -> None:
    samples, _, _ = run(Plan(20, 0.1, 60, 3), 1e-5, 0.02)
    assert samples.seconds.shape == (len(samples.opening), 2)
    assert samples.seconds[:, 0] == pytest.approx(1e-5) and samples.seconds[:, 1] == pytest.approx(0.02)


def test_fast_models_are_timed_in_blocks_that_the_clock_can_see() -> None:
    samples, _, _ = run(Plan(20, 0.1, 60, 3), 1e-5, 0.02)
    assert samples.n_inner == (100, 1)
    assert samples.n_inner[0] * 1e-5 >= BLOCK_S * 0.999


def test_it_goes_on_until_both_minima_are_reached() -> None:
    by_runs, _, _ = run(Plan(40, 0.0, 60, 0), 0.001)
    assert 40 <= len(by_runs.seconds) <= 48
    by_time, _, _ = run(Plan(4, 2.0, 60, 0), 0.001)
    assert by_time.seconds.sum() == pytest.approx(2.0, abs=0.05)


def test_it_ends_at_the_maximum() -> None:
    samples, _, clock = run(Plan(1000, 3.0, 5.0, 0), 0.5)
    assert clock.now_s < 5 + 12 * (0.5 + 0.5)
    assert 1 <= len(samples.seconds) < 20


def test_every_measurement_has_at_least_one_round() -> None:
    samples, _, _ = run(Plan(1, 0.0, 0.0, 0), 10.0)
    assert samples.seconds.tolist() == [[10.0]]


def test_models_are_opened_again_and_each_opening_has_its_rounds() -> None:
    samples, log, _ = run(Plan(48, 0.5, 60, 1), 0.001, 0.001)
    assert log.count(("open", 0)) == 12
    counts = [int((samples.opening == k).sum()) for k in range(12)]
    assert min(counts) >= 4 and samples.opening.tolist() == sorted(samples.opening.tolist())


def test_models_that_open_slowly_are_opened_once() -> None:
    samples, log, _ = run(Plan(50, 1.0, 60, 1), 0.001, 0.001, opening_s=10.0)
    assert log.count(("open", 0)) == 1 and set(samples.opening.tolist()) == {0}


def test_others_do_not_leave_their_cache_to_the_timed_block() -> None:
    _, log, _ = run(Plan(4, 0.0, 60, 0), 2e-4, 3e-4)
    blocks = log[-4:]
    assert blocks[0] == (blocks[1][0], 1) and blocks[2] == (blocks[3][0], 1)
    assert blocks[1][1] > 1
    _, alone, _ = run(Plan(4, 0.0, 60, 0), 2e-4)
    assert alone[-2:] == [("a", 5), ("a", 5)]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_over_the_rounds_everyone_is_equally_often_at_every_place(n: int) -> None:
    orders = [order(n, k) for k in range(2 * n)]
    assert all(sorted(one) == list(range(n)) for one in orders)
    for place in range(n):
        assert sorted(one[place] for one in orders) == sorted([*range(n)] * 2)


def test_two_models_alternate() -> None:
    assert [order(2, k) for k in range(2)] == [[0, 1], [1, 0]]


def test_progress_rises_to_one() -> None:
    seen: list[tuple[int, float]] = []
    samples, _, _ = run(Plan(24, 0.1, 60, 1), 0.001, on_round=lambda n, share: seen.append((n, share)))
    assert [n for n, _ in seen] == list(range(1, len(samples.seconds) + 1))
    shares = [share for _, share in seen]
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_garbage_collection_is_off_while_timing_and_back_after() -> None:
    states: list[bool] = []
    run(Plan(4, 0.0, 60, 0), 0.001, on_round=lambda n, share: states.append(gc.isenabled()))
    assert not any(states) and gc.isenabled()


def test_garbage_collection_is_back_after_an_error() -> None:
    def stop(n: int, share: float) -> None:
        raise KeyboardInterrupt("stopped by hand")

    with pytest.raises(KeyboardInterrupt, match="stopped by hand"):
        run(Plan(4, 0.0, 60, 0), 0.001, on_round=stop)
    assert gc.isenabled()


def test_the_figure_with_copies_is_a_median_of_single_inferences() -> None:
    log: list[tuple[str, int]] = []
    times = iter([9.0] * 9 + [1.0, 2.0, 3.0] * 3)

    def block(n_inner: int) -> float:
        log.append(("copies", n_inner))
        return next(times)

    assert copied_s(block) == 2.0
    assert set(log) == {("copies", 1)} and len(log) == 18
