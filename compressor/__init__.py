"""The public Python API: the verbs of the command line on a `Program`.

It must never import torch before a name is used. In short:

import compressor

program = compressor.load("model.pt", arch="lenet5", data="mnist:data")
data, task = compressor.open_data(program.record.data), compressor.open_task(None)
settings = compressor.PruneSettings(ratio=13, method="admm", retrain_recipe=compressor.Recipe(epochs=20))
program, report = compressor.prune(program, settings, data=data, task=task)
program, report = compressor.compact(program, data=data, task=task)
compressor.export(program, "model.onnx")
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.analysis import analyze, explain, scan_sensitivity
    from compressor.asking import Admm, PruneSettings, Recipe, Recovery, ScanSettings, Sensitivity
    from compressor.axes import rule as register_axis_rule
    from compressor.compaction import compact
    from compressor.cost import multiplies as register_mac_rule
    from compressor.data import open_data, open_task
    from compressor.errors import CompressError
    from compressor.exporting import export_onnx as export
    from compressor.formats import load, save
    from compressor.program import InputSpec, Program, capture
    from compressor.progress import Progress
    from compressor.pruning import Pruner, prune, retrain
    from compressor.timing import OperatorClock, bench
    from compressor.training import evaluate

__version__ = "0.2.0"

# onnxruntime 1.29 and later tell Microsoft which model is opened, by name and digest, from when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Admm",
    "CompressError",
    "InputSpec",
    "OperatorClock",
    "Program",
    "Progress",
    "PruneSettings",
    "Pruner",
    "Recipe",
    "Recovery",
    "ScanSettings",
    "Sensitivity",
    "__version__",
    "analyze",
    "bench",
    "capture",
    "compact",
    "evaluate",
    "explain",
    "export",
    "load",
    "open_data",
    "open_task",
    "prune",
    "register_axis_rule",
    "register_mac_rule",
    "retrain",
    "save",
    "scan_sensitivity",
]

_HOME = {
    "Admm": "compressor.asking",
    "CompressError": "compressor.errors",
    "InputSpec": "compressor.program",
    "OperatorClock": "compressor.timing",
    "Program": "compressor.program",
    "Progress": "compressor.progress",
    "PruneSettings": "compressor.asking",
    "Pruner": "compressor.pruning",
    "Recipe": "compressor.asking",
    "Recovery": "compressor.asking",
    "ScanSettings": "compressor.asking",
    "Sensitivity": "compressor.asking",
    "analyze": "compressor.analysis",
    "bench": "compressor.timing",
    "capture": "compressor.program",
    "compact": "compressor.compaction",
    "evaluate": "compressor.training",
    "explain": "compressor.analysis",
    "export": "compressor.exporting:export_onnx",
    "load": "compressor.formats",
    "open_data": "compressor.data",
    "open_task": "compressor.data",
    "prune": "compressor.pruning",
    "register_axis_rule": "compressor.axes:rule",
    "register_mac_rule": "compressor.cost:multiplies",
    "retrain": "compressor.pruning",
    "save": "compressor.formats",
    "scan_sensitivity": "compressor.analysis",
}
"""Module that defines a public name, with `:name` where it is called differently there."""


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'compressor' has no attribute {name!r}")
    module, _, other = home.partition(":")
    value = getattr(importlib.import_module(module), other or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
