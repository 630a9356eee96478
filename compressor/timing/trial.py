"""One inference of an ONNX file in a process of its own, which is ended when it takes too long.

onnxruntime cannot be stopped from outside, and a file may ask for 2^62 rounds of a loop, or for what ends the process.
This file is run by its path, so that the other process imports nothing but onnxruntime: it must never import this
package.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_OPENING_S, _BYTES_PER_S = 20.0, 5e6
"""What a process may take to begin, and to read a file of that many bytes: slow disks, busy machines."""


def check_ends(path: Path, size_bytes: int, told: Sequence[dict[str, Any]], batch: int, seconds: float) -> str | None:
    """Why the file cannot be measured: it does not finish one inference in `seconds`, or ends the process that tries.

    None where it finishes, and where it cannot be run at all: whoever runs it here says that better. `told` are shapes,
    bounds and values of inputs, by `name`.
    """
    job = json.dumps({"path": str(path), "told": list(told), "batch": batch})
    limit_s = seconds + _OPENING_S + size_bytes / _BYTES_PER_S
    command = [sys.executable, "-P", str(Path(__file__)), job]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=limit_s, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"one inference takes longer than --max-seconds {seconds:g}, and was ended; give it more if it may"
    if done.returncode < 0:
        return f"onnxruntime ends its process by signal {-done.returncode} when it runs it"
    return None


def _run(job: dict[str, Any]) -> None:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(job["path"], options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    told = {spec["name"]: spec for spec in job["told"]}
    if not set(told) & set(names):
        told = dict(zip(names, job["told"], strict=False))
    rng, feeds = np.random.default_rng(0), {}
    for given in session.get_inputs():
        spec = told.get(given.name, {"shape": given.shape})
        shape = [job["batch"] if not isinstance(n, int) else n for n in spec["shape"]]
        dtype = np.dtype(_NUMPY[given.type])
        if spec.get("value") is not None:
            feeds[given.name] = np.full(shape, spec["value"], dtype)
        elif dtype.kind == "f":
            feeds[given.name] = rng.standard_normal(shape).astype(dtype)
        else:
            feeds[given.name] = rng.integers(0, spec.get("high") or 2, shape).astype(dtype)
    session.run(None, feeds)


_NUMPY = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(int64)": "int64",
    "tensor(int32)": "int32", "tensor(bool)": "bool", "tensor(uint8)": "uint8",
}  # fmt: skip

if __name__ == "__main__":
    _run(json.loads(sys.argv[1]))
