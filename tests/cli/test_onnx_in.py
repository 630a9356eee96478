"""ONNX in, ONNX out, without a Python model: every command on an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BENCH = ("--min-seconds", "0.01", "--max-seconds", "0.5", "--min-runs", "5", "--warmup", "1")


def test_an_onnx_file_goes_all_the_way(run: Any, here: Path) -> None:
    assert run("export", "model.pt").code == 0
    (here / "net.py").unlink()
    (here / "model.pt").unlink()
    done = run("analyze", "model.onnx", "--json")
    assert done.code == 0
    assert [layer["name"] for layer in done.json["layers"]] == ["conv1", "conv2", "fc"]
    prune = ("prune", "model.onnx", "-r", "2x", "-m", "magnitude", "--no-retrain", "-o", "p.pt")
    assert run(*prune).code == 0
    assert run("retrain", "p.pt", "--data", "data.npz", "--epochs", "1", "-o", "r.pt").code == 0
    done = run("compact", "r.pt", "-o", "c.pt", "--json")
    assert done.code == 0
    done = run("export", "c.pt", "-o", "small.onnx", "--json")
    assert done.code == 0
    assert (here / "small.onnx").stat().st_size < (here / "model.onnx").stat().st_size
    done = run("bench", "model.onnx", "small.onnx", *BENCH, "--json")
    assert [t["subject"]["name"] for t in done.json["timings"]] == ["model.onnx", "small.onnx"]
    again = run("analyze", "small.onnx", "--json")
    assert again.code == 0
    assert again.json["n_params"] < run("analyze", "model.onnx", "--json").json["n_params"] / 1.9


def test_a_truncated_file_is_an_error_of_one_line(run: Any, here: Path) -> None:
    assert run("export", "model.pt").code == 0
    content = (here / "model.onnx").read_bytes()
    (here / "cut.onnx").write_bytes(content[: len(content) // 2])
    done = run("analyze", "cut.onnx")
    assert done.code == 1
    assert "cut.onnx" in done.err
    assert done.err.count("\n") <= 3
