"""`compress env`: what a bug report should say of the machine and what is installed; it must never import that."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from compressor import __version__
from compressor.cli.config_file import find_config
from compressor.errors import ConfigError

PACKAGES = (
    *("torch", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "onnxscript", "pydantic", "rich"),
    *("safetensors", "typer", "accelerate", "torchvision", "timm", "pillow", "transformers"),
)
"""What this tool can use, whether or not it must."""
SCHEMA = "compress.env/1"


def environment() -> dict[str, Any]:
    """Plain values by name; no path but where this tool lies, and of variables only which are set."""
    return {
        "schema": SCHEMA,
        "compress": __version__,
        "installed": str(Path(__file__).parents[1]),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": sorted(name for name in os.environ if name.startswith(("COMPRESS_", "OMP_", "CUDA_", "TORCH_"))),
        "config": _config(),
        "encoding": sys.stdout.encoding,
    }


def as_text(found: dict[str, Any]) -> str:
    """A line for each, the packages below each other."""
    lines = [f"{name:<10} {_told(value)}" for name, value in found.items() if name not in ("schema", "packages")]
    packages = [f"{name:<16} {version or 'not installed'}" for name, version in found["packages"].items()]
    return "\n".join([*lines, "", *packages])


def as_json(found: dict[str, Any]) -> str:
    """One object in one line."""
    return json.dumps(found)


def _told(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, list) else "none" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _config() -> str | None:
    """The file that would stand in for options here."""
    try:
        file = find_config(Path.cwd())
    except ConfigError as error:
        return str(error)
    return None if file is None else str(file.path)
