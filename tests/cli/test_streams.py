"""Where models come from and go to."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compressor.cli import streams
from compressor.cli.declared import read_options
from compressor.cli.pruning import PruneOptions
from compressor.cli.session import Session
from compressor.cli.streams import Target, choose_resume_point, choose_target, default_name
from compressor.errors import OutputError, UsageError


def options(model: str = "model.pt", **more: Any) -> PruneOptions:
    return read_options(PruneOptions, {"model": model, "ratio": "2x", **more})


@pytest.mark.parametrize(
    ("model", "suffix", "name"),
    [
        ("model.pt", ".pruned.pt", "model.pruned.pt"),
        ("runs/a.b/model.safetensors", ".pruned.pt", "runs/a.b/model.pruned.pt"),
        ("model.pruned.pt", ".retrained.pt", "model.retrained.pt"),
        ("model.retrained.pt", ".compact.pt", "model.compact.pt"),
        ("model.pruned.pt", ".pruned.pt", "model.pruned.pt"),
        ("model.compact.pt", ".onnx", "model.compact.onnx"),
        ("resnet20-12fca82f.th", ".onnx", "resnet20-12fca82f.onnx"),
        ("model", ".compact.pt", "model.compact.pt"),
    ],
)
def test_default_names(model: str, suffix: str, name: str) -> None:
    assert default_name(options(model), suffix) == name


def test_initial_weights_are_called_after_the_architecture() -> None:
    assert default_name(options("init", arch="lenet5"), ".pruned.pt") == "lenet5.pruned.pt"
    assert default_name(options("init", arch="a/net.py:Net"), ".onnx") == "a-net.py-Net.onnx"


def test_standard_input_has_no_name() -> None:
    with pytest.raises(UsageError, match="give -o FILE or -o -"):
        default_name(options("-"), ".onnx")


def test_a_target_that_cannot_be_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there.pt"
    there.touch()
    with pytest.raises(OutputError, match="exists already; overwrite it with --force"):
        choose_target(options(output=str(there)), ".pruned.pt")
    assert choose_target(options(output=str(tmp_path / "there.pt"), force=True), "").path == tmp_path / "there.pt"
    with pytest.raises(OutputError, match="is a directory"):
        choose_target(options(output=str(tmp_path), force=True), ".pruned.pt")
    with pytest.raises(OutputError, match=r"there is no directory .*create it first"):
        choose_target(options(output=str(tmp_path / "no" / "m.pt")), ".pruned.pt")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match="cannot write into"):
        choose_target(options(output=str(tmp_path / "m.pt")), ".pruned.pt")


def test_standard_output_takes_either_the_model_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="both want standard output"):
        choose_target(options(output="-", json=True), ".pruned.pt")
    assert choose_target(options(output="-"), ".pruned.pt") == Target(None, False)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UsageError, match="binary file to the terminal"):
        choose_target(options(output="-"), ".pruned.pt")


def test_a_terminal_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UsageError, match="is a terminal here"):
        streams.stdin_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(b"abc")))
    assert streams.stdin_bytes() == b"abc"


def chosen(target: Target, asked: PruneOptions) -> Path | None:
    """The resume point as a run of its own would get it, let go at once."""
    session = Session("prune", asked)
    with session.resources:
        return choose_resume_point(target, asked, session)


def test_a_resume_point_is_never_dropped_silently(tmp_path: Path) -> None:
    target = Target(tmp_path / "m.pruned.pt", False)
    point = tmp_path / "m.pruned.pt.resume"
    assert chosen(target, options()) == point
    with pytest.raises(UsageError, match=r"--resume: there is no .*m\.pruned\.pt\.resume"):
        chosen(target, options(resume=True))
    point.touch()
    with pytest.raises(UsageError, match="continue with --resume, or drop it with --force"):
        chosen(target, options())
    assert chosen(target, options(resume=True)) == point
    assert point.exists()
    assert chosen(target, options(force=True)) == point
    assert not point.exists()


def test_a_stream_cannot_be_resumed() -> None:
    assert chosen(Target(None, False), options()) is None
    with pytest.raises(UsageError, match="--resume needs an output file"):
        chosen(Target(None, False), options(resume=True))
