"""Courses of the penalty, without any weight."""

from __future__ import annotations

import pytest

from compressor.asking.penalty import Growing, Reading, Steered


def test_a_growing_penalty_stops_at_its_limit() -> None:
    course, rho, seen = Growing(0.1, 3.0, 1.0), 0.1, []
    for _ in range(4):
        rho = course.after(rho, Reading(0.5, 1.0, 1.0, 10))
        seen.append(rho)
    assert seen == pytest.approx([0.3, 0.9, 1.0, 1.0])


def test_a_steered_penalty_rises_where_the_residual_stands_and_falls_where_it_runs_ahead() -> None:
    course = Steered(0.1, settle=0.6, limit=10.0)
    assert course.after(0.1, Reading(0.3, 1.0, 1.0, 10)) == pytest.approx(0.2)
    assert course.after(0.1, Reading(0.1, 0.5, 1.0, 10)) < 0.1
    assert course.after(8.0, Reading(0.5, 1.0, 1.0, 10)) == 10.0
