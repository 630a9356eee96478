"""Peak memory of a model, measured in a process of its own; it must never guess where it cannot be measured.

The peak of this process is shared by all subjects and by torch itself. So each file is opened and run once in
a fresh process whose runtime has already run another, tiny model: what its resident memory grows by from
there, at the highest point, is the model's. Only Linux can reset the high-water mark that this needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compressor.program import InputSpec
from compressor.timing.providers import Provider
from compressor.timing.subjects import Opened

_TIMEOUT_S = 600.0


def peak_memory(
    entry: Opened, provider: Provider, threads: int, batch: int, inputs: Sequence[InputSpec] = ()
) -> tuple[int | None, str]:
    """Bytes, or None and the reason."""
    if not Path("/proc/self/clear_refs").exists():
        return None, "only Linux tells the peak of a process"
    if provider.ort_name != "CPUExecutionProvider":
        return None, f"on {provider.name} most of it is not this machine's main memory"
    if entry.path is None:
        return None, f"{entry.subject.name} is not a file that another process could open"
    job = {
        "path": str(entry.path),
        "provider": provider.name,
        "threads": threads,
        "batch": batch,
        "inputs": [spec.to_mapping() for spec in inputs],
    }
    command = [sys.executable, "-m", "compressor.timing.footprint", json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=_env())
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{entry.subject.name}: the measuring process failed: {type(error).__name__}"
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines or not lines[-1].lstrip("-").isdigit():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return None, f"{entry.subject.name}: the measuring process failed: {last[:200]}"
    return max(0, int(lines[-1])), ""


def _env() -> dict[str, str]:
    """This process's environment, with this package where the other process finds it."""
    root = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": root if not known else os.pathsep.join((root, known))}
