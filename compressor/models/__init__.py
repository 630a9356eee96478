"""Bundled architectures and `build`, which makes a module from any `--arch`.

It must never hold data sets, training, or a graph of a network.
"""

from compressor.architectures import ALIASES, parse_arch_args
from compressor.models.boundary import ending_at
from compressor.models.exported import ending_at_heads, exported_form, left_outside, part_with_weights
from compressor.models.inputs import InputHint, takes_by_name, taking_by_name
from compressor.models.rebuilt import rebuilt
from compressor.models.registry import ARCHITECTURES, Architecture, Built, build, fill
from compressor.models.task_outputs import keep_every_head, parameters_behind
from compressor.models.ultralytics import fixed_for_good, image_of, import_ultralytics

__all__ = [
    "ALIASES",
    "ARCHITECTURES",
    "Architecture",
    "Built",
    "InputHint",
    "build",
    "ending_at",
    "ending_at_heads",
    "exported_form",
    "fill",
    "fixed_for_good",
    "image_of",
    "import_ultralytics",
    "keep_every_head",
    "left_outside",
    "parameters_behind",
    "parse_arch_args",
    "part_with_weights",
    "rebuilt",
    "takes_by_name",
    "taking_by_name",
]
