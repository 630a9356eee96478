"""The process that `memory` starts: opens one model, runs it once, prints the bytes that took at the highest
point.

It must never be imported by anything that measures time.
"""

from __future__ import annotations

import gc
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import torch
from torch import nn

from compressor.formats import is_onnx, load, save
from compressor.program import InputSpec, capture
from compressor.timing.providers import find_provider
from compressor.timing.subjects import open_subjects


def main(argument: str) -> int:
    """Peak growth in bytes of the model that the JSON text describes."""
    job: dict[str, Any] = json.loads(argument)
    path, threads = Path(job["path"]), int(job["threads"])
    torch.set_num_threads(threads)
    if is_onnx(path):
        _warm_onnxruntime()
    else:
        _warm_torch()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    provider = find_provider(job["provider"])
    (entry,) = open_subjects([path], provider)
    inputs = [InputSpec.from_mapping(spec) for spec in job["inputs"]]
    runner = entry.runner(provider, threads, inputs=inputs)
    runner.prepare(int(job["batch"]), seed=0)
    return resident("VmHWM") - before


def resident(key: str) -> int:
    """A line of this process's memory status in bytes: VmRSS now, VmHWM at most since the last reset."""
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {key}")
    return int(found[1]) * 1024


def _warm_torch() -> None:
    """Loads what torch and the reader of checkpoints load on first use."""
    tiny = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    stream = io.BytesIO()
    save(capture(tiny, [InputSpec("x", (None, 1, 4, 4))]), stream)
    program = load(io.BytesIO(stream.getvalue()))
    with torch.inference_mode():
        program.module(*program.example_inputs(1))


def _warm_onnxruntime() -> None:
    """A session with one convolution, so that the runtime's libraries are in."""
    value = onnx.helper.make_tensor_value_info
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 1, 3, 3], [0.0] * 18)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])],
        "tiny",
        [value("x", onnx.TensorProto.FLOAT, [1, 1, 4, 4])],
        [value("y", onnx.TensorProto.FLOAT, [1, 2, 2, 2])],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": torch.zeros(1, 1, 4, 4).numpy()})


if __name__ == "__main__":
    print(main(sys.argv[1]))
