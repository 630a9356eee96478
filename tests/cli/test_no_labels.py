"""Data without labels on the command line: what the dense model answers takes their place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

TRAIN = ("--epochs", "1", "--batch-size", "16", "--device", "cpu")


@pytest.fixture
def unlabelled(run: Any) -> str:
    with np.load("data.npz") as held:
        np.savez("unlabelled.npz", x_train=held["x_train"], x_test=held["x_test"])
    return "unlabelled.npz"


def test_the_whole_road(run: Any, unlabelled: str) -> None:
    shared = ("--data", unlabelled, *TRAIN, "--json")
    pruned = run("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--reconstruct", "2", *shared)
    assert pruned.code == 0, pruned.err
    assert "has no labels; what the dense model answers takes their place" in pruned.err
    assert pruned.json["stages"][0]["metrics"]["agreement"] == 1.0
    tuned = run("retrain", "model.pruned.pt", "--teacher", "model.pt", *shared)
    assert tuned.code == 0 and 0 <= tuned.json["stages"][-1]["metrics"]["agreement"] <= 1
    compact = run("compact", "model.retrained.pt", "--data", unlabelled, "--json")
    assert compact.code == 0 and compact.json["metrics"] is None
    assert run("export", "model.compact.pt", "--data", unlabelled, "--int8", "static").code == 0


def test_a_scan_without_labels_measures_agreement(run: Any, unlabelled: str) -> None:
    done = run("analyze", "model.pt", "--data", unlabelled, "--sensitivity", "--json")
    assert done.code == 0, done.err
    assert done.json["sensitivity"]["metric"] == "agreement"


def test_without_the_dense_model_the_way_out_is_named(run: Any, unlabelled: str) -> None:
    run("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--no-retrain", "--no-latency")
    done = run("retrain", "model.pruned.pt", "--data", unlabelled, *TRAIN)
    assert done.code == 2 and "has no labels; give the dense model as --teacher MODEL" in done.err


@pytest.mark.parametrize(("limit", "code"), [("0", 0), ("1.01", 3)])
def test_a_gate_on_agreement_with_labels_and_without(run: Any, unlabelled: str, limit: str, code: int) -> None:
    for ref in ("data.npz", unlabelled):
        done = run(
            "prune", "model.pt", "-r", "2x", "-m", "magnitude", "--data", ref, *TRAIN, "--no-latency", "--force",
            "--require", f"agreement>={limit}",
        )  # fmt: skip
        assert done.code == code, done.err
