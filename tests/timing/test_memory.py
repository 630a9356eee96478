"""Peak memory in a process of its own, or None with the reason."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.program import Program
from compressor.timing import memory
from compressor.timing.footprint import resident
from compressor.timing.memory import peak_memory
from compressor.timing.providers import find_provider
from compressor.timing.subjects import open_subjects

CPU = find_provider("cpu")
WEIGHT_BYTES = 32 * 2**20

needs_linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset a process's high-water mark"
)


def large_onnx(path: Path) -> Path:
    """`y = x @ w` with 32 MiB of weights."""
    n = WEIGHT_BYTES // 4 // 1024
    weight = onnx.numpy_helper.from_array(np.ones((1024, n), np.float32), "w")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "large",
        [info("x", TensorProto.FLOAT, ["batch", 1024])],
        [info("y", TensorProto.FLOAT, ["batch", n])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    return path


@needs_linux
def test_the_peak_holds_at_least_the_weights(tmp_path: Path, onnx_file: Callable[..., Path]) -> None:
    small, large = open_subjects([onnx_file(), large_onnx(tmp_path / "large.onnx")], CPU)
    (peak_small, _), (peak_large, reason) = (peak_memory(entry, CPU, 1, 1) for entry in (small, large))
    assert peak_large is not None and peak_small is not None, reason
    assert WEIGHT_BYTES <= peak_large < 8 * WEIGHT_BYTES
    assert peak_small < WEIGHT_BYTES / 2


@needs_linux
def test_a_process_knows_its_own_memory() -> None:
    assert 2**20 < resident("VmRSS") <= resident("VmHWM")
    with pytest.raises(RuntimeError, match="has no VmNone"):
        resident("VmNone")


@needs_linux
def test_what_cannot_be_measured_has_a_reason(program: Program, onnx_file: Callable[..., Path]) -> None:
    alone, file = open_subjects([program, onnx_file()], CPU)
    assert peak_memory(alone, CPU, 1, 1) == (None, "tiny is not a file that another process could open")
    peak, reason = peak_memory(file, find_provider("cuda"), 1, 1)
    assert peak is None and "on cuda" in reason


@needs_linux
@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError: big"), "failed: MemoryError: big"),
        (subprocess.CompletedProcess([], 0, "what", ""), "failed: no message"),
        (subprocess.TimeoutExpired("x", 1), "failed: TimeoutExpired"),
    ],
)
def test_a_failed_process_is_a_reason_not_a_number(
    onnx_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, result: Any, reason: str
) -> None:
    def run(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(memory.subprocess, "run", run)
    (entry,) = open_subjects([onnx_file()], CPU)
    peak, found = peak_memory(entry, CPU, 1, 1)
    assert peak is None and found.endswith(reason)
