"""A first look at a cut: rounds in turns over several openings, and given up where one inference is long."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from compressor.program import Program
from compressor.timing import glance, side_by_side
from compressor.timing.operator_onnx import operator_model


class Scripted:
    """Stands in for an open model: its bytes say how long a run takes, in microseconds; every block is counted."""

    blocks: list[tuple[bytes, int]]
    openings: list[bytes]

    def __init__(self, model: bytes, threads: int, feeds: Sequence[Any]) -> None:
        self.model, self.once_s = model, int(model) * 1e-6
        Scripted.openings.append(model)

    def block(self, n_inner: int) -> float:
        Scripted.blocks.append((self.model, n_inner))
        return n_inner * self.once_s


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    Scripted.blocks, Scripted.openings = [], []
    monkeypatch.setattr(importlib.import_module("compressor.timing.glance"), "OpenModel", Scripted)
    return Scripted


FEEDS = [np.zeros((1, 3))]


@pytest.mark.parametrize(("after", "verdict"), [(b"1000", "faster"), (b"2000", "no difference"), (b"4000", "slower")])
def test_the_speedup_is_before_over_after(scripted: type[Scripted], after: bytes, verdict: str) -> None:
    found = glance(b"2000", after, FEEDS)
    assert found is not None
    assert found.speedup == pytest.approx(2000 / int(after))
    assert found.low == found.high == pytest.approx(found.speedup)
    assert (found.verdict, found.is_faster) == (verdict, verdict == "faster")
    assert (found.before_s, found.after_s) == (pytest.approx(2e-3), pytest.approx(int(after) * 1e-6))
    assert (found.threads, found.batch, found.estimated) == (1, 1, None)


def test_models_take_turns_and_are_opened_more_than_once(scripted: type[Scripted]) -> None:
    rows, opening = side_by_side([b"10", b"20", b"30"], FEEDS, 1, 1.0)
    assert rows.shape == (len(opening), 3) and len(set(opening.tolist())) >= 2
    assert scripted.openings.count(b"10") == len(set(opening.tolist()))
    timed = [model for model, n in scripted.blocks if n > 1]
    assert timed[:3] != timed[3:6] and sorted(timed[:3]) == sorted(timed[3:6]) == [b"10", b"20", b"30"]


@pytest.mark.parametrize("microseconds", [1, 100, 10_000, 100_000])
def test_it_takes_about_a_second_whatever_the_model(scripted: type[Scripted], microseconds: int) -> None:
    model = str(microseconds).encode()
    assert glance(model, model, FEEDS) is not None
    spent = sum(n * int(model) * 1e-6 for model, n in scripted.blocks)
    assert spent < 4.0


def test_an_inference_that_is_long_is_not_waited_for(scripted: type[Scripted]) -> None:
    assert glance(b"900000", b"100000", FEEDS) is None
    assert len(scripted.blocks) == 1 and scripted.openings == [b"900000"]


def test_real_models_are_timed(program: Program) -> None:
    model = operator_model(program, 1)
    found = glance(model, model, [np.ones((1, 4), np.float32)], seconds=0.01)
    assert found is not None and found.low is not None and found.high is not None and found.before_s is not None
    assert 0 < found.low <= found.speedup <= found.high and found.before_s > 0
