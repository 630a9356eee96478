"""Tiny models in every form that can be benched, and timings made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from compressor.formats import save
from compressor.program import InputSpec, Program, Record, capture
from compressor.timing import Environment, Subject, Timing


@pytest.fixture
def program() -> Program:
    """Four numbers in, three out; remembers no data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        return capture(net, [InputSpec("x", (None, 4))], record=Record(arch="tiny"))


@pytest.fixture
def checkpoint(program: Program, tmp_path: Path) -> Path:
    save(program, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def write_onnx(path: Path, dims: list[int | str] | None = None, element: int = TensorProto.FLOAT) -> Path:
    """`y = relu(x @ w)` with w (4, 3) all ones, for x of `dims`."""
    dims = dims if dims is not None else ["batch", 4]
    weight = onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    if element != TensorProto.FLOAT:
        nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), *nodes]
        nodes[1].input[0] = "f"
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", element, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*dims[:-1], 3])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX file of a name, input dimensions and element type."""

    def write(name: str = "tiny.onnx", dims: list[int | str] | None = None, element: int = TensorProto.FLOAT) -> Path:
        return write_onnx(tmp_path / name, dims, element)

    return write


@pytest.fixture
def environment() -> Environment:
    return Environment("cpu", 2, None, "2.13", "1.31", "3.11", "Linux", 0.0)


@pytest.fixture
def timing() -> Callable[..., Timing]:
    """A timing without any fault; every field can be given."""

    def make(name: str = "m.onnx", **changes: Any) -> Timing:
        kind = changes.pop("kind", "onnx")
        size, n_params = changes.pop("size_bytes", 1000), changes.pop("n_params", 100)
        values: dict[str, Any] = {
            "subject": Subject(name, name, kind, size, n_params),
            "provider": "cpu",
            "threads": 1,
            "batch": 1,
            "n_runs": 100,
            "n_inner": 1,
            "n_openings": 1,
            "median_s": 1e-3,
            "mean_s": 1e-3,
            "p90_s": 1.1e-3,
            "p99_s": 1.2e-3,
            "min_s": 0.9e-3,
            "mad_s": 1e-5,
            "n_outliers": 0,
            "throughput_per_s": 1000.0,
            "peak_memory_bytes": None,
            "accuracy": None,
            "speedup": 1.0,
            "speedup_low": 1.0,
            "speedup_high": 1.0,
            "verdict": "reference",
        }
        return Timing(**{**values, **changes})

    return make
