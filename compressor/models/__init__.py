"""Bundled architectures and `build`, which makes a module from any `--arch`.

It must never hold data sets, training, or a graph of a network.
"""

from compressor.models.exported import exported_form, left_outside, part_with_weights
from compressor.models.inputs import InputHint, takes_by_name
from compressor.models.registry import ALIASES, ARCHITECTURES, Architecture, Built, build, fill, parse_arch_args
from compressor.models.ultralytics import fixed_for_good, image_of, import_ultralytics

__all__ = [
    "ALIASES",
    "ARCHITECTURES",
    "Architecture",
    "Built",
    "InputHint",
    "build",
    "exported_form",
    "fill",
    "fixed_for_good",
    "image_of",
    "import_ultralytics",
    "left_outside",
    "parse_arch_args",
    "part_with_weights",
    "takes_by_name",
]
