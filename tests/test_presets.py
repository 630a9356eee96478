"""How defaults of distillation and presets are chosen: on held-out training images, and as the documents say."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from benchmarks.presets import CASES, SHARES, held_out, learned_from, table
from compressor.asking.presets import PRESETS
from compressor.data.arrays import Arrays, ArraySource

PAGE = " ".join((Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8").split())


def source(case_size: int, n_test: int) -> ArraySource:
    """Images that are their own numbers: the training ones from 0 on, the test ones below 0."""
    train, test = torch.arange(float(case_size))[:, None], -1 - torch.arange(float(n_test))[:, None]
    return ArraySource("numbers", Arrays(train, train[:, 0].long()), Arrays(test, test[:, 0].long()), None)


def test_what_is_chosen_on_is_neither_learned_from_nor_the_test_set() -> None:
    for case in CASES:
        data = source(60_000 if case.arch == "lenet5" else 50_000, 10_000)
        for part in (held_out(data, case), learned_from(data, case)):
            learned, judged = set(part.train.inputs[:, 0].tolist()), set(part.val.inputs[:, 0].tolist())
            assert not learned & judged and min(learned | judged) >= 0
        assert len(held_out(data, case).val.inputs) == case.n_held
        assert held_out(data, case, test=True).val.inputs.max() < 0, "the twin: that one is the test set"


def test_a_table_has_mean_and_spread() -> None:
    rows = [{"arch": "a", "part": "shares", "what": "0", "held_out": v, "test": 90.0, "cpu_s": 2} for v in (97.0, 99.0)]
    assert table(rows).splitlines()[-1] == "| a | shares | 0 | 98.00 ± 1.41 | 90.00 ± 0.00 | 2 | 2 |"


def test_the_presets_are_told_as_they_are() -> None:
    told = re.search(
        r"quick is (\d+) epochs of search and (\d+) of retraining, "
        r"balanced (\d+) and (\d+) with `--distill ([\d.]+)`, best (\d+) and (\d+) with ([\d.]+); "
        r"for `retrain` (\d+), (\d+) and (\d+) epochs",
        PAGE,
    )
    assert told is not None
    prune, retrain = PRESETS["prune"], PRESETS["retrain"]
    quick, balanced, best = prune["quick"], prune["balanced"], prune["best"]
    assert [float(text) for text in told.groups()] == [
        quick["epochs"], quick["retrain_epochs"], balanced["epochs"], balanced["retrain_epochs"], balanced["distill"],
        best["epochs"], best["retrain_epochs"], best["distill"], *(each["epochs"] for each in retrain.values()),
    ]  # fmt: skip
    assert quick["distill"] == 0.0
    assert {0.0, *(each["distill"] for each in prune.values())} <= set(SHARES), "what is set was measured"
