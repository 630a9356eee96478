"""The value of a sensitivity scan: what it refuses, what it says between its points, and its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from compressor.asking import Sensitivity, load_sensitivity
from compressor.errors import UsageError

SCAN = Sensitivity(
    "accuracy", 0.9, 100, "unstructured", {"conv1": ((0.5, 0.8), (0.9, 0.4)), "fc": ((0.5, 0.9),)}, unmeasured=("fc2",)
)


def test_json_brings_back_the_same_value() -> None:
    assert Sensitivity.from_mapping(json.loads(json.dumps(SCAN.to_mapping()))) == SCAN
    assert next(iter(SCAN.to_mapping())) == "schema"


def test_a_scan_inside_the_output_of_analyze_is_found() -> None:
    assert Sensitivity.from_mapping({"schema": "compress.analyze/1", "sensitivity": SCAN.to_mapping()}) == SCAN


def test_a_metric_that_is_no_number_survives_json() -> None:
    lost = replace(SCAN, curves={"conv1": ((0.5, math.nan),)})
    text = json.dumps(lost.to_mapping(), allow_nan=False)
    assert math.isnan(Sensitivity.from_mapping(json.loads(text)).curves["conv1"][0][1])


@pytest.mark.parametrize(
    ("layer", "removed", "loss"),
    [("conv1", 0.0, 0.0), ("conv1", 0.25, 0.05), ("conv1", 0.5, 0.1), ("conv1", 0.7, 0.3), ("conv1", 1.0, 0.6),
     ("fc", 0.9, 0.0)],
)  # fmt: skip
def test_loss_is_read_off_straight_lines(layer: str, removed: float, loss: float) -> None:
    assert SCAN.loss_at(layer, removed) == pytest.approx(loss)


def test_loss_of_a_metric_that_should_be_small_is_its_growth() -> None:
    perplexity = Sensitivity("loss", 1.0, 10, "filter", {"a": ((0.5, 3.0),)}, higher_is_better=False)
    assert perplexity.loss_at("a", 0.25) == pytest.approx(1.0)
    diverged = replace(perplexity, curves={"a": ((0.5, math.inf),)})
    assert diverged.loss_at("a", 0.5) == math.inf


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dense": math.nan}, "of the dense network is nan"),
        ({"n_samples": 0}, "measured on 0 samples"),
        ({"curves": {"a": ()}}, "a: removed shares must lie between 0 and 1"),
        ({"curves": {"a": ((0.0, 0.9),)}}, "a: removed shares must lie between 0 and 1"),
        ({"curves": {"a": ((0.5, 0.9), (0.5, 0.8))}}, "a: removed shares must rise"),
    ],
)
def test_what_is_no_scan_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        replace(SCAN, **changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON"),
        ("[1]", "holds no scan"),
        ('{"metric": "accuracy"}', "not a scan: cannot be read: dense"),
        ('{"schema": "compress.sensitivity/2"}', "this version reads compress.sensitivity/1"),
    ],
)
def test_a_file_without_a_scan_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "scan.json").write_text(text)
    with pytest.raises(UsageError, match=told):
        load_sensitivity(tmp_path / "scan.json")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="analyze MODEL --sensitivity -o"):
        load_sensitivity(tmp_path / "scan.json")
    (tmp_path / "scan.json").write_text(json.dumps(SCAN.to_mapping()))
    assert load_sensitivity(tmp_path / "scan.json") == SCAN
