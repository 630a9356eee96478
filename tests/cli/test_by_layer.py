"""Options about single layers: how they are written, what they say about a ratio, what is refused without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.cli.by_layer import LayerOptions, decides_alone, glob_values, layer_values
from compressor.errors import UsageError


def test_pairs_are_read_from_behind_and_bare_numbers_are_for_all() -> None:
    assert glob_values(["conv*=0.5", "a=b=1e-2"], "--layer", "x") == (("conv*", 0.5), ("a=b", 0.01))
    assert glob_values(["0.8", "fc=1"], "--quality", "x", alone="*") == (("*", 0.8), ("fc", 1.0))


@pytest.mark.parametrize("text", ["conv1", "conv1=", "=0.5", "conv1=half", "0.5"])
def test_what_is_no_pair_is_shown_one(text: str) -> None:
    with pytest.raises(UsageError, match=f"--layer {text}: write it as conv1=0.66"):
        layer_values(LayerOptions(layer=[text]), "global")


def test_who_says_what_stays_needs_no_ratio() -> None:
    assert not decides_alone(LayerOptions()) and not decides_alone(LayerOptions(sensitivity="scan.json"))
    for options in (LayerOptions(layer=["a=1"]), LayerOptions(quality=["1"]), LayerOptions(max_loss=0.0)):
        assert decides_alone(options)


def test_a_missing_scan_names_the_command_that_makes_one() -> None:
    told = "needs a scan; make one with `compress analyze MODEL --sensitivity -o scan.json`"
    with pytest.raises(UsageError, match=f"--allocation sensitivity: {told}"):
        layer_values(LayerOptions(), "sensitivity")
    with pytest.raises(UsageError, match=f"--max-loss: {told}"):
        layer_values(LayerOptions(max_loss=0.1), "global")


def test_a_scan_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text(
        '{"metric": "accuracy", "dense": 0.9, "n_samples": 5, "pattern": "filter", "curves": {"a": [[0.5, 0.8]]}}'
    )
    scan = layer_values(LayerOptions(sensitivity=str(path)), "sensitivity")["sensitivity"]
    assert scan.loss_at("a", 0.5) == pytest.approx(0.1)
