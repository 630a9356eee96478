"""Stages that left the network worse, in words: which count, what is advised, and what is too little to be said."""

from __future__ import annotations

import pytest

from compressor.data import Classification, LanguageModelling, Task
from compressor.pruning.pruned import StageRow
from compressor.pruning.worsened import worsened
from compressor.units import Params


def stage(
    name: str, value: float | None, *, params: int = 100, metric: str = "accuracy", epochs: tuple[float, ...] = (),
    **extra: float,
) -> StageRow:  # fmt: skip
    history = tuple({"epoch": float(i), metric: reached} for i, reached in enumerate(epochs, 1))
    metrics = None if value is None else {metric: value}
    return StageRow(name, 1.0, Params(params), len(epochs), 0.0, metrics, extra, history)


def said(*rows: StageRow, task: Task | None = None, keeps_best: bool = False) -> tuple[str, ...]:
    return worsened(rows, task or Classification(), keeps_best=keeps_best)


def test_a_stage_that_cuts_nothing_and_lowers_the_metric_is_told_with_advice() -> None:
    (text,) = said(stage("pruned", 0.9), stage("retrain", 0.8, epochs=(0.7, 0.8)))
    assert text == "retrain lowered accuracy from 90.00 % to 80.00 %; try a smaller --lr, or do without it"
    (text,) = said(stage("pruned", 0.9), stage("recalibrate", 0.8))
    assert text.endswith("; leave --recalibrate and --reconstruct out, or give them more batches")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (stage("dense", 0.9), stage("hard prune", 0.8, params=50)),
        (stage("dense", 0.9), stage("admm", 0.8, residual=0.1)),
        (stage("dense", 0.9), stage("retrain", 0.9, epochs=(0.9,))),
        (stage("dense", 0.9), stage("retrain", 0.95, epochs=(0.95,))),
        (stage("dense", 0.9), stage("retrain", 0.899999, epochs=(0.9,))),
        (stage("dense", None), stage("retrain", 0.8, epochs=(0.8,))),
        (stage("dense", 0.9), stage("retrain", None, epochs=(0.8,))),
    ],
)
def test_cuts_searches_gains_and_what_is_not_known_or_not_seen_are_no_news(before: StageRow, after: StageRow) -> None:
    assert said(before, after) == ()


def test_each_stage_is_compared_with_the_one_before_it() -> None:
    rows = (stage("dense", 0.9), stage("one", 0.8), stage("two", 0.85), stage("three", 0.7))
    assert [text.split()[0] for text in said(*rows)] == ["one", "three"]


@pytest.mark.parametrize(
    ("epochs", "keeps_best", "advice"),
    [
        ((0.91, 0.95, 0.8), False, "epoch 2 had 95.00 %, which --keep-best keeps"),
        ((0.9, 0.8), False, "epoch 1 had 90.00 %, which --keep-best keeps"),
        ((0.89, 0.8), False, "try a smaller --lr, or do without it"),
        ((0.91, 0.95, 0.8), True, "try a smaller --lr, or do without it"),
    ],
)
def test_an_epoch_that_was_no_worse_is_told_unless_it_would_have_been_kept(
    epochs: tuple[float, ...], keeps_best: bool, advice: str
) -> None:
    (text,) = said(stage("pruned", 0.9), stage("retrain", 0.8, epochs=epochs), keeps_best=keeps_best)
    assert text.endswith(f"; {advice}")


def test_where_less_is_better_more_is_worse() -> None:
    task = LanguageModelling("causal-lm")
    before = stage("pruned", 20.5, metric="perplexity")
    rows = (before, stage("retrain", 30.5, metric="perplexity", epochs=(25.5, 19.5, 30.5)))
    assert said(*rows, task=task) == (
        "retrain raised perplexity from 20.5 to 30.5; epoch 2 had 19.5, which --keep-best keeps",
    )
    assert said(before, stage("retrain", 10.5, metric="perplexity", epochs=(10.5,)), task=task) == ()
