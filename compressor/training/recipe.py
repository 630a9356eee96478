"""How a model is trained, as one checked value; it must never hold the model, the data, or what changes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from compressor.errors import ConfigError

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["cosine", "linear", "constant", "step"]
Precision = Literal["fp32", "bf16", "fp16"]
Keep = Literal["last", "best"]

PEAK_LR: Mapping[Optimizer, float] = MappingProxyType({"adam": 1e-3, "adamw": 1e-3, "sgd": 0.02})
"""Where a cosine starts if nothing is said; sgd takes a large rate (Le & Hua 2021, "Network Pruning That Matters"). Of
780 steps at batch 128 a ResNet-20 ended 0.9 points higher from 0.04 than from 0.01; 0.02 is that for the default 64."""


@dataclass(frozen=True)
class Recipe:
    """One training run: optimizer, schedule, regularisation, precision, and when to stop.

    Units:   lengths are epochs; `lr` is the peak rate, if left out that of the optimizer in `PEAK_LR`; `batch_size` is
             that of all processes together. `step_epochs` is how long the step schedule keeps a rate, a third of the
             cycle if left out.
    Raises:  ConfigError naming the field, its value and the allowed range.
    """

    epochs: int = 20
    batch_size: int = 64
    optimizer: Optimizer = "adam"
    lr: float = None  # type: ignore[assignment]  # a number from __post_init__ on
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    l1: float = 0.0
    schedule: Schedule = "cosine"
    cycle_epochs: float | None = None
    warmup_epochs: int = 0
    min_lr_factor: float = 0.0
    step_epochs: float | None = None
    step_factor: float = 0.1
    clip_norm: float | None = None
    distill: float = 0.0
    temperature: float = 4.0
    label_smoothing: float = 0.0
    augment: bool = False
    precision: Precision = "fp32"
    keep: Keep = "last"
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.lr is None:  # pyright: ignore[reportUnnecessaryComparison]
            object.__setattr__(self, "lr", PEAK_LR.get(self.optimizer, PEAK_LR["adam"]))
        for name, rule in _RULES.items():
            object.__setattr__(self, name, rule.checked(name, getattr(self, name)))
        room = min(self.epochs, self.cycle_epochs or self.epochs)
        if self.warmup_epochs >= room:
            raise ConfigError(
                f"warmup_epochs = {self.warmup_epochs}: must be less than epochs and cycle_epochs, "
                f"here less than {room}"
            )
        if self.schedule == "step" and self.step_epochs is not None and self.step_epochs >= room:
            raise ConfigError(
                f"step_epochs = {self.step_epochs:g}: the rate would never fall; must be less than epochs and "
                f"cycle_epochs, here less than {room:g}, or left out for a third of that"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from a TOML table or parsed flags; `batch-size` and `batch_size` are the same key.

        Raises:  ConfigError for an unknown key (naming the nearest known), a key given twice, a wrong value.
        """
        known = [field.name for field in fields(cls)]
        taken: dict[str, Any] = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3) or known
                raise ConfigError(f"{key}: no such training option; nearest known: {', '.join(near)}")
            if name in taken:
                raise ConfigError(f"{key}: given twice, with - and with _; keep one of them")
            taken[name] = value
        return cls(**taken)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by field name, as TOML can hold them: what is None is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class _Rule:
    kind: type
    allowed: str
    holds: Callable[[Any], bool]
    optional: bool = False

    def checked(self, name: str, value: Any) -> Any:
        """The value, an int turned into a float where a float is meant."""
        if value is None and self.optional:
            return None
        if self.kind is float and type(value) is int:
            value = float(value)
        right_kind = type(value) is self.kind and (not isinstance(value, float) or math.isfinite(value))
        if not right_kind or not self.holds(value):
            raise ConfigError(f"{name} = {value!r}: must be {self.allowed}")
        return value


def _one_of(*words: str) -> _Rule:
    return _Rule(str, f"one of {', '.join(words)}", words.__contains__)


def _count(least: int, optional: bool = False) -> _Rule:
    none = " (or left out)" if optional else ""
    return _Rule(int, f"a whole number, {least} or more{none}", lambda value: value >= least, optional)


_NOT_NEGATIVE = _Rule(float, "a number, 0 or more", lambda value: value >= 0)
_POSITIVE = _Rule(float, "a number above 0", lambda value: value > 0)
_SHARE = _Rule(float, "a number from 0 to 1", lambda value: 0 <= value <= 1)
_BELOW_ONE = _Rule(float, "a number from 0 to below 1", lambda value: 0 <= value < 1)
_YES_NO = _Rule(bool, "true or false", lambda value: True)

_RULES: dict[str, _Rule] = {
    "epochs": _count(1),
    "batch_size": _count(1),
    "optimizer": _one_of("adam", "adamw", "sgd"),
    "lr": _POSITIVE,
    "momentum": _BELOW_ONE,
    "nesterov": _YES_NO,
    "weight_decay": _NOT_NEGATIVE,
    "l1": _NOT_NEGATIVE,
    "schedule": _one_of("cosine", "linear", "constant", "step"),
    "cycle_epochs": _Rule(float, "a number above 0 (or left out)", lambda value: value > 0, optional=True),
    "warmup_epochs": _count(0),
    "min_lr_factor": _SHARE,
    "step_epochs": _Rule(float, "a number above 0 (or left out)", lambda value: value > 0, optional=True),
    "step_factor": _Rule(float, "a number above 0, at most 1", lambda value: 0 < value <= 1),
    "clip_norm": _Rule(float, "a number above 0 (or left out)", lambda value: value > 0, optional=True),
    "distill": _SHARE,
    "temperature": _POSITIVE,
    "label_smoothing": _BELOW_ONE,
    "augment": _YES_NO,
    "precision": _one_of("fp32", "bf16", "fp16"),
    "keep": _one_of("last", "best"),
    "patience": _count(1, optional=True),
}
