"""The machine and the libraries that a bench ran on; it must never change any of them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import onnxruntime as ort
import torch

from compressor.timing.measured import Environment

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def environment() -> Environment:
    """As it is now."""
    return Environment(
        cpu=cpu_name(_CPUINFO),
        n_cores=n_cores(_CGROUP_QUOTA),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        torch=torch.__version__,
        onnxruntime=ort.__version__,
        python=platform.python_version(),
        system=platform.platform(terse=True),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def cpu_name(cpuinfo: Path) -> str:
    """The processor's name: the kernel's where it tells, else what Python knows."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def n_cores(quota: Path) -> int:
    """Cores that this process may use: its affinity, and the share that a container's CPU quota leaves."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not quota.is_file():
        return there
    limit, _, period = quota.read_text().partition(" ")
    if not (limit.strip().isdigit() and period.strip().isdigit() and int(period)):
        return there
    return max(1, min(there, int(limit) // int(period)))
