"""The step in a checkpoint's history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import compressor
from compressor.cli.declared import read_options
from compressor.cli.provenance import canonical_options, make_step, versions
from compressor.cli.pruning import PruneOptions
from compressor.cli.streams import Source


def options(**more: Any) -> PruneOptions:
    said = {"model": "secret/model.pt", "ratio": "13x", "scope": ("conv*",), "data": "mnist:/home/me/data"}
    return read_options(PruneOptions, {**said, **more})


def test_canonical_options_are_what_has_a_say_in_the_result() -> None:
    found = canonical_options(options(output="x.pt", force=True, json=True, quiet=True, augment=True, seed=3))
    assert found["ratio"] == "13x"
    assert found["scope"] == ["conv*"]
    assert found["augment"] is True
    assert found["method"] == "admm"  # a default that may change one day
    assert not {"output", "force", "json", "quiet", "model", "seed", "data", "keep", "lr"} & set(found)


def test_no_path_of_the_user_is_told() -> None:
    assert "/home/me" not in str(canonical_options(options()))


def test_what_a_state_dict_needs_is_told_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = {"arch": f"{tmp_path}/nets/net.py:Net", "input": ("1x28x28",), "arch_arg": ("width=8",)}
    found = canonical_options(options(**said))
    assert (found["arch"], found["input"], found["arch-arg"]) == ("nets/net.py:Net", ["1x28x28"], ["width=8"])
    assert canonical_options(options(arch="resnet20"))["arch"] == "resnet20"
    assert "arch" not in canonical_options(options()), "a checkpoint knows its own"


def test_a_step_says_what_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    source = Source("model.pt", None, "ab12")  # type: ignore[arg-type]
    step = make_step("prune", options(seed=3), source, {"accuracy": 0.99})
    assert (step.command, step.seed, step.parent_sha256) == ("prune", 3, "ab12")
    assert step.metrics == {"accuracy": 0.99}
    assert step.time_utc == "1970-01-01T00:00:00+00:00"


def test_versions_name_the_tool_and_torch() -> None:
    assert versions()["compressor"] == compressor.__version__
    assert {"python", "torch", "numpy", "onnx", "onnxruntime"} <= set(versions())
