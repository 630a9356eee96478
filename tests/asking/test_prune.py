"""What `prune` can be asked for: texts and values that are read, what goes together, what is refused without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compressor.asking import PruneSettings, build, parse_pattern
from compressor.asking.globs import glob_values
from compressor.errors import UsageError

SCAN = '{"metric": "accuracy", "dense": 0.9, "n_samples": 5, "pattern": "filter", "curves": {"a": [[0.5, 0.8]]}}'


def asked(**said: Any) -> PruneSettings:
    return build(PruneSettings, said)


def test_pairs_are_read_from_behind_and_bare_numbers_are_for_all() -> None:
    assert glob_values(["conv*=0.5", "a=b=1e-2"], "--layer", "x") == (("conv*", 0.5), ("a=b", 0.01))
    assert glob_values(["0.8", "fc=1"], "--quality", "x", alone="*") == (("*", 0.8), ("fc", 1.0))


@pytest.mark.parametrize("text", ["conv1", "conv1=", "=0.5", "conv1=half", "0.5"])
def test_what_is_no_pair_is_shown_one(text: str) -> None:
    with pytest.raises(UsageError, match=f"--layer {text}: write it as conv1=0.66"):
        asked(layer=[text])


@pytest.mark.parametrize(
    ("said", "ratio"),
    [
        ({"ratio": "13x"}, 13.0),
        ({"sparsity": 0.75}, 4.0),
        ({"pattern": "2:4"}, 2.0),
        ({"pattern": "1:4", "ratio": "4"}, 4.0),
        ({"layer": ["a=0.5"]}, 1.0),
        ({"quality": ["0.8"], "method": "magnitude"}, 1.0),
        ({"layer": ["a=0.5"], "ratio": "3x"}, 3.0),
    ],
)
def test_the_ratio_that_is_meant(said: dict[str, Any], ratio: float) -> None:
    assert asked(**said).ratio == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, "exactly one of --ratio"),
        ({"ratio": "2x", "sparsity": 0.5}, "exactly one of --ratio"),
        ({"sparsity": 1.5}, "--sparsity 1.5: must lie between 0 and 1"),
        ({"ratio": "1"}, "--ratio 1: a ratio is dense"),
        ({"ratio": "3x", "pattern": "2:4"}, "--pattern 2:4: means --ratio 2.00x"),
        ({"pattern": "2:4", "steps": 2, "method": "magnitude"}, "--steps 2: approaches a ratio, and --pattern 2:4"),
        (
            {"ratio": "2x", "round_to": "8", "pattern": "unstructured"},
            "--round-to 8: --pattern unstructured ch",
        ),
        ({"ratio": "2x", "round_to": "eight"}, "--round-to eight: a whole number from 1, or auto"),
        ({"ratio": "2x", "allocation": "sensitivity"}, "--allocation sensitivity: needs a scan; make one with"),
        ({"max_loss": 0.1}, "--max-loss: needs a scan; make one with"),
        ({"ratio": "2x", "score": "l1"}, "--score l1: --method admm draws"),
        ({"ratio": "2x", "method": "magnitude", "score": "bn", "pattern": "unstructured"}, "--score bn: rates whole"),
        ({"ratio": "2x", "select_inputs": True, "pattern": "unstructured"}, "--select-inputs: inputs go as whole"),
        ({"ratio": "2x", "of": "latency", "allocation": "latency"}, "--of latency: already counts time"),
        ({"ratio": "2x", "of": "latency", "pattern": "shape"}, "--of latency: measures widths"),
        ({"ratio": "2x", "score": "output"}, "--score output: says what is lost with a residual block"),
        ({"ratio": "2x", "pattern": "layer", "method": "magnitude", "score": "fpgm"}, "--score fpgm: rates whole"),
        ({"ratio": "2x", "pattern": "layer", "score": "l1"}, "--score l1: --method admm draws"),
        ({"ratio": "2x", "pattern": "layer", "method": "group-lasso"}, "--method group-lasso: draws the units"),
        ({"ratio": "2x", "pattern": "layer", "of": "latency"}, "--of latency: measures widths"),
        ({"ratio": "2x", "pattern": "layer", "round_to": "8"}, "--round-to 8: --pattern layer changes no width"),
        ({"ratio": "2x", "pattern": "layer+channel", "uniform": True}, r"--uniform: --pattern layer\+channel cuts"),
        ({"ratio": "2x", "pattern": "layer+channel", "layer": ["a=0.5"]}, "--layer: counts filters"),
        ({"ratio": "2x", "floor": 1.0}, "--floor 1: must be from 0 to below 1"),
        ({"ratio": "2x", "rho": -1.0}, "--rho -1: must be at least 0"),
        ({"ratio": "2x", "rho": 0.0, "rho_max": 1.0}, "--rho 0: nothing grows from it"),
        ({"ratio": "2x", "rho_max": 1e-9}, "--rho-max 1e-09: must be at least --rho"),
        ({"ratio": "2x", "layer_rho": ["a=-1"]}, "--layer-rho a=-1: must be 0 or more"),
        ({"quality": ["0.8"]}, "--quality: a threshold on weights"),
        ({"layer": ["a=2"]}, "--layer a=2: the share that stays"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        asked(**said)


def test_a_scan_is_read_from_its_file_and_must_be_used(tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text(SCAN)
    settings = asked(ratio="2x", sensitivity=str(path), allocation="sensitivity")
    assert settings.sensitivity is not None
    assert settings.sensitivity.loss_at("a", 0.5) == pytest.approx(0.1)
    with pytest.raises(UsageError, match="--sensitivity: goes with"):
        asked(ratio="2x", sensitivity=str(path))
    with pytest.raises(UsageError, match="scan again with that pattern"):
        asked(ratio="2x", sensitivity=str(path), allocation="sensitivity", pattern="unstructured")


def test_a_pattern_is_read_once_and_takes_its_usual_spelling() -> None:
    settings = asked(ratio="2x", pattern="shape+filter")
    assert settings.pattern == parse_pattern("filter+shape") == replace(settings).pattern
    assert str(settings.pattern) == "filter+shape"
    assert asked(ratio="2x", pattern=parse_pattern("channel")).pattern.units == "channel"
    with pytest.raises(UsageError, match="--pattern 3: must be text"):
        asked(ratio="2x", pattern=3)


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ({}, "l2"),
        ({"pattern": "layer"}, "output"),
        ({"pattern": "layer+channel", "method": "magnitude"}, "output"),
        ({"pattern": "layer", "score": "l2"}, "l2"),
        ({"pattern": "layer", "method": "random"}, "l2"),
    ],
)
def test_blocks_are_rated_by_the_output_unless_another_score_is_asked_for(said: dict[str, Any], score: str) -> None:
    assert asked(ratio="2x", **said).score == score


def test_asking_does_not_import_torch() -> None:
    modules = "compressor.asking, compressor.asking.gates, compressor.asking.export"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
