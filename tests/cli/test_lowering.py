"""Pattern shape to a smaller ONNX file on the command line, and what latency options take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import compressor.timing
from compressor.formats import load
from compressor.program import Program
from compressor.timing import CutLatency


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Times are kept here, not in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cut(run: Any, *more: str) -> None:
    done = run("prune", "model.pt", "--ratio", "3x", "--method", "magnitude", "--no-retrain", *more)
    assert done.code == 0, done.err


def test_columns_are_removed_and_reported(run: Any, own_cache: Path) -> None:
    cut(run, "--pattern", "shape")
    done = run("compact", "model.pruned.pt", "--json")
    assert done.code == 0, done.err
    lowered = {layer["name"]: layer for layer in done.json["lowered"]}
    assert set(lowered) == {"conv1", "conv2", "fc"}
    assert all(layer["form"] in layer["seconds"] for layer in lowered.values() if layer["seconds"])
    assert done.json["agreement"]["float64_relative"] < 1e-10
    assert (own_cache / "compress" / "operators.json").is_file()
    assert run("export", "model.compact.pt", "-o", "small.onnx").code == 0


def test_a_form_can_be_asked_for_and_dense_keeps_the_zeros(run: Any, own_cache: Path) -> None:
    cut(run, "--pattern", "shape")
    done = run("compact", "model.pruned.pt", "--lowering", "columns", "-o", "columns.pt")
    assert done.code == 0 and "becomes columns" in done.out, done.err
    assert load("columns.pt").parameters["conv2.weight"].shape[2:] == (1, 1)
    done = run("compact", "model.pruned.pt", "--lowering", "dense", "-o", "dense.pt")
    assert done.code == 0 and "stays dense (asked for)" in done.out
    assert load("dense.pt").n_parameters > load("columns.pt").n_parameters
    assert not own_cache.exists()


def test_an_unknown_form_is_a_usage_error(run: Any) -> None:
    done = run("compact", "model.pt", "--lowering", "winograd")
    assert done.code == 2 and "winograd" in done.err


class WeightsPerSecond:
    """Stands in for the clock: an operator takes a second per weight."""

    def __init__(self, threads: int, cache: Path) -> None:
        assert threads == 1 and cache.name == "operators.json"

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        return tuple(float(program.n_parameters) for program in programs)


def twice_as_fast_by_half_the_weights(before: Program, after: Program, *_: object) -> tuple[CutLatency, str]:
    """Stands in for the network's own time: the root of what the weights say."""
    speedup = (before.n_parameters / after.n_parameters) ** 0.9
    return CutLatency(speedup, speedup, speedup, "faster", 1.0, 1 / speedup), ""


def test_a_ratio_of_time_and_a_measured_multiple(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressor.timing, "OperatorClock", WeightsPerSecond)
    monkeypatch.setattr("compressor.cli.latency._measured", twice_as_fast_by_half_the_weights)
    cut(run, "--of", "latency", "-o", "time.pt")
    assert load("time.pt").record.steps[-1].metrics["of"] == "latency"
    assert load("time.pt").record.steps[-1].metrics["got"] == pytest.approx(3, rel=0.05)
    cut(run, "--allocation", "latency", "--round-to", "auto", "-o", "fastest.pt")
    assert load("fastest.pt").n_zeroed > 0
    done = run("prune", "model.pt", "--ratio", "1.5x", "--of", "latency", "--dry-run", "--json")
    assert done.code == 0 and done.json["of"] == "latency", done.err


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "many"])
def test_a_multiple_is_a_number_or_auto(run: Any, text: str) -> None:
    done = run("prune", "model.pt", "--ratio", "2x", "--round-to", text)
    assert done.code == 2 and f"--round-to {text}: a whole number from 1, or auto" in done.err
