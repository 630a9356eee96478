"""Gates: read with units before any work, and met only by a number that is there."""

from __future__ import annotations

import math

import pytest

from compressor.asking.gates import COUNT_METRIC, FACTOR_METRIC, MEASURED, SIZE_METRIC, judge, parse_gate
from compressor.errors import UsageError

KNOWN = {"accuracy": MEASURED, "ratio": FACTOR_METRIC, "params": COUNT_METRIC, "size": SIZE_METRIC}


@pytest.mark.parametrize(
    ("text", "metric", "limit"),
    [
        ("accuracy>=98.5%", "accuracy", 0.985),
        ("ratio>=10x", "ratio", 10.0),
        ("params<=50k", "params", 50_000.0),
        ("params<=1.5M", "params", 1.5e6),
        ("SIZE <= 1.5 MiB", "size", 1.5 * 2**20),
    ],
)
def test_units(text: str, metric: str, limit: float) -> None:
    gate = parse_gate(text, KNOWN)
    assert gate.metric == metric
    assert gate.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy", "not a requirement; write it as accuracy>=0.98, ratio>=10, params<=50k"),
        ("acuracy>=1", "acuracy is not measured; did you mean accuracy"),
        ("zebra>=1", "use one of accuracy, ratio, params, size"),
        ("size<=3", "a unit is missing; size takes: b, kb"),
        ("ratio>=3%", "unknown unit %; ratio takes: none, x"),
    ],
)
def test_what_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gate(text, KNOWN)


def test_a_task_brings_names_of_its_own() -> None:
    assert parse_gate("iou>=50%", KNOWN, others=True).limit == 0.5
    with pytest.raises(UsageError, match="iou is not measured"):
        parse_gate("iou>=50%", KNOWN)


@pytest.mark.parametrize(
    ("text", "value", "passed", "told"),
    [
        ("accuracy>=0.98", 0.98, True, None),
        ("accuracy>0.98", 0.98, False, "accuracy>0.98: got 0.98"),
        ("ratio>=10", 9.5, False, "ratio>=10: got 9.50x"),
        ("size<=1KiB", 2048, False, "size<=1KiB: got 2 KiB"),
        ("params<=1k", 1000, True, None),
        ("accuracy>=0", math.nan, False, "accuracy>=0: got nan"),
        ("accuracy>=0", None, False, "accuracy>=0: accuracy was not measured"),
    ],
)
def test_verdicts(text: str, value: float | None, passed: bool, told: str | None) -> None:
    gate = parse_gate(text, KNOWN)
    (verdict,) = judge([gate], KNOWN, {gate.metric: value})
    assert (verdict.text, verdict.passed, verdict.message) == (text, passed, told)
