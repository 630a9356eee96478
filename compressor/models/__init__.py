"""Bundled architectures and `build`, which makes a module from any `--arch`.

It must never hold data sets, training, or a graph of a network.
"""

from compressor.architectures import ALIASES, parse_arch_args
from compressor.models.inputs import InputHint, takes_by_name, taking_by_name
from compressor.models.registry import ARCHITECTURES, Architecture, Built, build, fill
from compressor.models.task_outputs import keep_every_head

__all__ = [
    "ALIASES",
    "ARCHITECTURES",
    "Architecture",
    "Built",
    "InputHint",
    "build",
    "fill",
    "keep_every_head",
    "parse_arch_args",
    "takes_by_name",
    "taking_by_name",
]
