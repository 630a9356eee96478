"""What one word stands for: values of options for `--preset`; it must never know which of them were given anyway."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

Preset = Literal["quick", "balanced", "best"]

PRESETS: Mapping[str, Mapping[Preset, Mapping[str, Any]]] = MappingProxyType(
    {
        "prune": {
            "quick": {"epochs": 4, "retrain_epochs": 4, "distill": 0.0, "round_to": "auto"},
            "balanced": {"epochs": 20, "retrain_epochs": 20, "distill": 0.5, "round_to": "auto"},
            "best": {"epochs": 40, "retrain_epochs": 60, "distill": 0.7, "round_to": "auto"},
        },
        "retrain": {
            "quick": {"epochs": 4},
            "balanced": {"epochs": 20},
            "best": {"epochs": 60},
        },
    }
)
"""By command and preset. `retrain` has its own share for a teacher and cuts nothing that could be rounded."""
