"""The judgment of two computations: rounding passes by the noise that was measured, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.program.agreement import NOISE_FACTOR, Agreement, Evidence, Tally, judge, leaves

INF, NAN = float("inf"), float("nan")


def tensors(*values: object) -> list[Tensor]:
    return [torch.tensor(value) for value in values]


def of(own: object, other: object, limit: float = 1e-5, **noise: object) -> Agreement:
    """The agreement of one output."""
    more = {name: (lambda value=value: tensors(value)) for name, value in noise.items()}
    return judge([Evidence(tensors(own), tensors(other), **more)], limit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "other", "passed"),
    [
        ([1.0, -4.0], [1.0, -4.0], True),
        ([1.0, -4.0], [1.00003, -4.0], True),
        ([1.0, -4.0], [1.00005, -4.0], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([0.0, 0.0], [0.0, 1e-30], False),
        ([1.0, NAN], [1.0, NAN], True),
        ([1.0, INF], [1.0, INF], True),
        ([1.0, NAN], [1.0, 1.0], False),
        ([1.0, 1.0], [1.0, NAN], False),
        ([1.0, INF], [1.0, -INF], False),
        ([1.0, INF], [1.0, 3e38], False),
        ([NAN, INF], [NAN, INF], False),
        ([1.0, 2.0], [1.0, 2.0, 3.0], False),
        ([[1.0, 2.0]], [1.0, 2.0], False),
        ([1, 2], [1, 2], True),
        ([10**9, 2], [10**9 + 1, 2], False),
        ([2**62, 0], [2**62 + 1, 0], False),
        ([True, False], [True, False], True),
        ([True, False], [True, True], False),
        ([], [], True),
    ],
)
def test_the_plain_limit(own: object, other: object, passed: bool) -> None:
    agreement = of(own, other)
    assert agreement.passed is passed and agreement.judgment == "limit" and agreement.noise is None


@pytest.mark.parametrize(("own", "other"), [(0, 255), (200, 7)])
def test_small_whole_numbers_do_not_wrap_around(own: int, other: int) -> None:
    found = judge([Evidence(*([torch.tensor([x], dtype=torch.uint8)] for x in (own, other)))], 1e-5)
    assert found.max_abs == abs(own - other) and not found.passed


@pytest.mark.parametrize(
    ("own", "other", "apart", "share"),
    [
        ([10**9, 2], [10**9 + 1, 2], 1, 1),
        ([2**62, 0], [2**62 + 1, 0], 1, 1),
        ([7, 2], [4, 2], 3, 3),
        ([0, 0], [0, 2], 2, 2),
        ([0.0, 0.0], [0.0, 0.5], 0.5, 0.5),
        ([4.0, 1.5], [4, 1], 0.5, 0.125),
        ([4, 1], [4.0, 1.5], 0.5, 0.5),
    ],
)
def test_differences_count_from_the_largest_and_those_of_whole_numbers_and_zeros_from_one(
    own: object, other: object, apart: float, share: float
) -> None:
    found = of(own, other)
    assert (found.max_abs, found.max_rel, found.passed) == (apart, share, False)


@pytest.mark.parametrize("kind", ["own rounding", "runtime noise", "sensitivity"])
def test_a_measured_noise_raises_the_limit_by_its_factor_and_no_further(kind: str) -> None:
    noisy = [1.0, -4.0 - 4e-4]
    noise = {
        "own rounding": {"exact": noisy},
        "runtime noise": {"again": [1.0 + 2e-3, -4.0 - 4e-4]},
        "sensitivity": {"exact": [1.0, -4.0], "shaken": noisy},
    }[kind]
    for share, passed in ((0.9, True), (1.1, False)):
        other = [1.0 + share * NOISE_FACTOR * 4e-4, -4.0]
        if kind == "runtime noise":
            noise["again"] = [other[0] + 4e-4, -4.0]
        agreement = of([1.0, -4.0], other, **noise)
        assert agreement.passed is passed and agreement.judgment == kind
        assert agreement.noise == pytest.approx(1e-4, rel=2e-3) and agreement.limit == pytest.approx(
            NOISE_FACTOR * 1e-4, rel=2e-3
        )
        assert str(agreement.basis).startswith("8 times ") and agreement.basis in str(agreement)


def test_noise_never_excuses_more_than_a_share_of_the_output() -> None:
    chaos = {"exact": [1.0, -4.0], "shaken": [3.0, -4.0], "again": [2.0, -4.0]}
    assert of([1.0, -4.0], [1.079, -4.0], **chaos).passed
    assert not of([1.0, -4.0], [1.081, -4.0], **chaos).passed


def test_what_is_left_of_a_saturated_output_may_be_one_step_of_its_rounding() -> None:
    own = [1e-7, 2e-7]
    assert of(own, [1.6e-7, 2e-7], exact=own, shaken=[1.5e-7, 2e-7]).judgment == "sensitivity"
    assert of(own, [1.6e-7, 2e-7], exact=own, shaken=[1.5e-7, 2e-7]).passed
    assert not of(own, [1.6e-7, 2e-7], exact=own, shaken=own).passed
    assert not of(own, [2e-6, 2e-7], exact=own, shaken=[1e-6, 2e-7]).passed


@pytest.mark.parametrize(
    ("rounding", "own", "most"),
    [
        (None, 1e-6, 2.0**-20),  # 16 roundings of 1, of float32 if nothing else is said
        (2.0**-24, 1e-6, 2.0**-20),
        (2.0**-53, 1.0, 2.0**-33),  # a million roundings of float64
        (2.0**-11, 1.0, 0.02),
    ],
)
def test_noise_excuses_so_many_roundings_and_no_more(rounding: float | None, own: float, most: float) -> None:
    """The noise is as large as the bound, so that eight times the noise decides nothing."""
    right = torch.tensor([own], dtype=torch.float64)
    more = {} if rounding is None else {"rounding": rounding}
    for share, passed in ((0.99, True), (1.01, False)):
        evidence = Evidence([right], [right + share * most], lambda: [right], lambda: [right + most], **more)
        found = judge([evidence], 1e-12)
        assert found.passed is passed and found.limit == pytest.approx(most / own, rel=1e-9)


def test_what_a_decision_was_chosen_from_is_excused_by_noise_only_and_told_by_its_name() -> None:
    def found(n_chosen: int, noise: float, apart: tuple[float, float] = (0.0, 1e-6)) -> Agreement:
        own, other = tensors([1.0], [4.0]), tensors([1.0 + apart[0]], [4.0 + apart[1]])
        moved = [own[0], own[1] + noise]
        evidence = Evidence(own, other, lambda: own, lambda: moved, names=("output 0", "argmax"), n_chosen=n_chosen)
        return judge([evidence], 1e-5)

    assert found(0, 0.0).passed
    assert not found(1, 0.0).passed and found(1, 0.0).where == "argmax" and found(1, 0.0).limit == 0.0
    assert found(1, 1e-6).passed and found(1, 1e-6).judgment == "sensitivity"
    assert found(1, 0.0, (1e-6, 0.0)).passed and not found(2, 0.0, (1e-6, 0.0)).passed
    assert "of the largest value at argmax (limit 0.0e+00)" in str(found(1, 0.0))
    assert "of the largest output (limit 1.0e-05)" in str(found(0, 0.0, (1.0, 0.0)))
    assert str(found(1, 0.0, (0.0, NAN))).startswith("argmax gives what it cannot")


def test_without_any_batch_nothing_was_compared() -> None:
    found = judge([], 1e-5)
    assert not found.passed and "nothing to compare" in str(found)


def test_noise_that_is_none_is_no_reason() -> None:
    for own in ([0.0, 0.0], [1.0, 2.0]):
        found = of(own, [own[0], own[1] + 1e-3], exact=own, shaken=own)
        assert (found.passed, found.judgment, found.noise) == (False, "limit", None)


def several(*parts: tuple[object, object, object]) -> Agreement:
    """The agreement of several outputs: what is right, what is compared, and the right one in float64."""
    own, other, exact = (tensors(*values) for values in zip(*parts, strict=True))
    return judge([Evidence(own, other, lambda: exact)], 1e-5)


def test_what_failed_is_told_before_what_passed_by_how_far_it_is_beyond_what_was_allowed() -> None:
    noisy = ([1.0], [1.0 + 2e-3], [1.0 - 1e-4])  # 8e-4 are allowed
    excused = ([1.0], [1.0 + 2e-3], [1.0 - 1e-3])
    plain = ([1.0], [1.0 + 1e-3], [1.0])
    whole = ([3, 4], [3, 4], [3, 4])
    misplaced = ([1.0], [NAN], [1.0])
    for parts, where in (
        ((noisy, plain), 1),
        ((excused, plain), 1),
        ((whole, plain), 1),
        ((plain, misplaced), 1),
        ((([1.0], [1.5], [1.0]), misplaced, whole), 1),
        ((([1, 2], [1, 3], [1, 2]), ([1, 2], [1, 9], [1, 2])), 1),
    ):
        found, turned = several(*parts), several(*parts[::-1])
        assert not found.passed and not turned.passed
        assert (found.where, turned.where) == (f"output {where}", f"output {len(parts) - 1 - where}")
    assert several(whole, excused).passed and several(whole, excused).where == "output 1"


def test_the_nearer_of_the_two_precisions_counts() -> None:
    own, exact = [1.0 + 1e-3, 4.0], [1.0, 4.0]
    assert of(own, [1.0 - 1e-5, 4.0], limit=1e-5, exact=exact).max_abs == pytest.approx(1e-5, rel=1e-2)


def test_a_number_that_float64_confirms_may_stand_for_a_nan() -> None:
    assert of([1.0, NAN], [1.0, 2.0], exact=[1.0, 2.0]).passed
    assert not of([1.0, NAN], [1.0, 2.1], exact=[1.0, 2.0]).passed
    assert not of([1.0, 2.0], [1.0, NAN], exact=[1.0, NAN]).passed


def test_the_costly_runs_are_made_once_and_only_where_they_decide() -> None:
    n_runs = 0

    def exact() -> list[Tensor]:
        nonlocal n_runs
        n_runs += 1
        return tensors([1.0, 4.0], [1.0])

    own = tensors([1.0, 4.0], [1.0])
    assert judge([Evidence(own, own, exact)], 1e-5).passed and n_runs == 0
    judge([Evidence(own, tensors([1.5, 4.0], [1.5]), exact, exact)], 1e-5)
    assert n_runs == 2


def test_every_output_has_its_own_scale_and_the_worst_is_told() -> None:
    small = judge([Evidence(tensors([1e6], [1e-3]), tensors([1e6], [1.1e-3]))], 1e-5)
    assert (small.passed, small.where, small.max_rel) == (False, "output 1", pytest.approx(0.1, rel=1e-4))
    assert judge([Evidence(tensors([1e6], [1e-3]), tensors([1e6], [1.1e-3]))], 1e-5, least_share=1e-3).passed


def test_the_scale_is_taken_over_all_inputs() -> None:
    large, next_to_zero = Evidence(tensors([1.0]), tensors([1.0])), Evidence(tensors([1e-7]), tensors([2e-7]))
    assert judge([large, next_to_zero], 1e-5).passed
    assert not judge([next_to_zero], 1e-5).passed


def test_another_number_of_outputs_is_a_fault_in_words() -> None:
    found = judge([Evidence(tensors([1.0]), tensors([1.0], [2.0]))], 1e-5)
    assert not found.passed and str(found) == "there are 2 outputs where the model has 1"


def test_one_output_without_a_finite_number_is_compared_beside_others() -> None:
    mask = [-INF, -INF]
    assert judge([Evidence(tensors([1.0], mask), tensors([1.0], mask))], 1e-5).passed
    assert "no finite number" in str(judge([Evidence(tensors(mask), tensors(mask))], 1e-5))


def test_leaves_are_found_in_every_structure() -> None:
    nested = {"a": torch.ones(1), "b": (np.array([2.0]), [torch.tensor([3]), None, 4]), "c": np.float32(5)}
    assert [float(x) for x in leaves(nested)] == [1, 2, 3, 5]


@pytest.mark.parametrize(
    "batches",
    [
        [([1.0, -4.0], [1.00003, -4.0]), ([0.5, 2.0], [0.5, 2.00001])],
        [([1.0, -4.0], [1.00005, -4.0]), ([0.5, 2.0], [0.5, 2.0])],
        [([1e-9, 0.0], [1e-9, 0.0]), ([5.0, 2.0], [5.0, 2.0])],
        [([1, 2], [1, 2]), ([3, 4], [3, 5])],
        [([1.0, NAN], [1.0, NAN]), ([1.0, INF], [1.0, INF])],
        [([1.0, NAN], [1.0, 1.0]), ([1.0, 1.0], [1.0, 1.0])],
        [([NAN], [NAN]), ([INF], [INF])],
        [([10**6, 2], [10**6 + 1, 2])],
        [([0.0, 0.0], [0.0, 1e-6]), ([0.0, 0.0], [0.0, 0.0])],
        [([0.0, 0.0], [0.0, 0.0])],
        [([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0], [1.0])],
    ],
)
def test_batch_by_batch_is_judged_as_all_at_once(batches: list[tuple[object, object]]) -> None:
    tally = Tally()
    for own, other in batches:
        tally.add(tensors(own), tensors(other))
    found, known = tally.agreement(1e-5), judge([Evidence(tensors(a), tensors(b)) for a, b in batches], 1e-5)
    assert (found is None) is (not known.passed)
    assert found is None or found == known


def test_large_outputs_are_compared_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.arange(10.0)
    for at in (0, 4, 9):
        other = own.clone()
        other[at] += 1.0
        whole = judge([Evidence([own], [other])], 1e-5)
        monkeypatch.setattr("compressor.program.agreement._PART", 3)
        assert judge([Evidence([own], [other])], 1e-5) == whole and not whole.passed
        monkeypatch.undo()


@pytest.mark.parametrize("share", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("off", [0.0, 5e-9, 5e-7, 2e-3])
def test_batch_by_batch_small_outputs_are_judged_beside_large_ones_as_all_at_once(share: float, off: float) -> None:
    big, small = torch.tensor([100.0, -3.0]), torch.tensor([1e-4, 2e-4])
    batches = [([big, small], [big, small + off]), ([big / 2, small], [big / 2, small])]
    tally = Tally()
    for own, other in batches:
        tally.add(own, other)
    found = tally.agreement(1e-5, least_share=share)
    known = judge([Evidence(own, other) for own, other in batches], 1e-5, least_share=share)
    assert (found is None) is (not known.passed)
    assert found is None or found == known


def test_batch_by_batch_what_has_another_number_of_outputs_or_none_has_to_be_looked_at() -> None:
    one = torch.ones(2)
    for batches in ([([one, one], [one, one]), ([one], [one])], [([one], [one, one])], [([], [])], []):
        tally = Tally()
        for own, other in batches:
            tally.add(own, other)
        assert tally.agreement(1e-5) is None
