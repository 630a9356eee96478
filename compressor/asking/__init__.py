"""What can be asked for: every option of every verb, declared once, as frozen dataclasses; it must never need torch."""

from compressor.asking.admm import Admm
from compressor.asking.option import Declared, Option, build, check, declared, group, option
from compressor.asking.pattern import Pattern, parse_pattern
from compressor.asking.prune import Cut, PruneSettings
from compressor.asking.recipe import Recipe
from compressor.asking.recovery import Healing, Recovery
from compressor.asking.scan import ScanSettings, Sensitivity, load_sensitivity
from compressor.asking.trainings import Trainings
from compressor.asking.walk import ThroughNorm, WalkOptions

__all__ = [
    "Admm",
    "Cut",
    "Declared",
    "Healing",
    "Option",
    "Pattern",
    "PruneSettings",
    "Recipe",
    "Recovery",
    "ScanSettings",
    "Sensitivity",
    "ThroughNorm",
    "Trainings",
    "WalkOptions",
    "build",
    "check",
    "declared",
    "group",
    "load_sensitivity",
    "option",
    "parse_pattern",
]
