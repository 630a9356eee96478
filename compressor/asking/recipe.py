"""How a model is trained, as one checked value; it must never hold the model, the data, or what changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from compressor.asking.option import (
    Range,
    above,
    above_up_to,
    at_least,
    check,
    from_below,
    from_to,
    option,
    setting,
)  # fmt: skip
from compressor.asking.panels import TRAINING
from compressor.errors import ConfigError, UsageError
from compressor.nearest import nearest

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["cosine", "linear", "constant", "step"]
Precision = Literal["fp32", "bf16", "fp16"]
KeptEpoch = Literal["last", "best"]

PEAK_LR: Mapping[Optimizer, float] = MappingProxyType({"adam": 1e-3, "adamw": 1e-3, "sgd": 0.02})
"""Where a cosine starts if nothing is said; sgd takes a large rate (Le & Hua 2021, "Network Pruning That Matters"). Of
780 steps at batch 128 a ResNet-20 ended 0.9 points higher from 0.04 than from 0.01; 0.02 is that for the default 64."""


DISTILL_WITH_TEACHER = 0.7
"""Share of the soft loss when `retrain` is given a teacher and nothing else said: mostly it, corrected by labels."""


def _said(default: Any, help: str, metavar: str | None = None, range: Range | None = None, **more: Any) -> Any:
    """A field that counts as given only if somebody gives it: two trainings of one command may have other defaults."""
    return option(default, help, metavar=metavar, range=range, panel=TRAINING, unsaid=True, **more)


@dataclass(frozen=True)
class Recipe:
    """One training run: optimizer, schedule, regularisation, precision, and when to stop.

    Units:   lengths are epochs, of all training samples or of `epoch_steps` optimizer steps where that is less; `lr` is
             the peak rate, if left out that of the optimizer in `PEAK_LR`; `batch_size` is that of all processes
             together. `step_epochs` is how long the step schedule keeps a rate, a third of the cycle if left out.
    Raises:  UsageError naming the option, its value and what is allowed.
    """

    epochs: int = setting(20, at_least(1))
    epoch_steps: int | None = _said(
        None, "Steps that count as an epoch, where all training samples would take more.", "N", at_least(1)
    )
    batch_size: int = _said(64, "Samples per step.", "N", at_least(1), flags=("-b",))
    optimizer: Optimizer = _said("adam", "What takes the steps.")
    lr: float = _said(None, "Peak learning rate.", "RATE", above(0), shown="0.001, for sgd 0.02")
    schedule: Schedule = _said("cosine", "Course of the learning rate.", name="lr_schedule")
    warmup_epochs: int = _said(0, "Epochs of linear warm-up.", "N", at_least(0))
    momentum: float = _said(0.9, "Momentum of sgd.", "M", from_below(0, 1))
    nesterov: bool = setting(True)
    weight_decay: float = _said(0.0, "L2 on weights, not on biases.", "X", at_least(0))
    l1: float = _said(0.0, "L1 on weights.", "X", at_least(0))
    cycle_epochs: float | None = setting(None, above(0))
    min_lr_factor: float = setting(0.0, from_to(0, 1))
    step_epochs: float | None = _said(
        None, "Epochs between two falls of --lr-schedule step.", "N", above(0), name="lr_step_epochs",
        shown="a third of the cycle",
    )  # fmt: skip
    step_factor: float = _said(
        0.1, "What --lr-schedule step multiplies the rate by at every fall.", "X", above_up_to(0, 1),
        name="lr_step_factor",
    )  # fmt: skip
    clip_norm: float | None = _said(None, "Largest norm of the gradient; longer ones are scaled down.", "X", above(0))
    distill: float = _said(
        0.0, "Share of the loss that comes from the dense model as a teacher, 0 to 1.", "SHARE", from_to(0, 1),
        shown=f"0, in retrain with --teacher {DISTILL_WITH_TEACHER}",
    )  # fmt: skip
    temperature: float = _said(4.0, "Temperature of distillation.", "T", above(0))
    label_smoothing: float = _said(0.0, "Label smoothing, 0 to below 1.", "X", from_below(0, 1))
    augment: bool = _said(False, "Augment training images.")
    precision: Precision = _said("fp32", "Precision of forward and backward.")
    compile: bool = _said(False, "Run steps through torch.compile: faster, after a start of up to minutes.")
    keep: KeptEpoch = _said("last", "Keep the best epoch, not the last.", name="keep_best", switch="best")
    patience: int | None = _said(None, "Stop after N epochs without a better one.", "N", at_least(1))

    def __post_init__(self) -> None:
        if self.lr is None:  # pyright: ignore[reportUnnecessaryComparison]
            object.__setattr__(self, "lr", PEAK_LR.get(self.optimizer, PEAK_LR["adam"]))
        check(self)
        room = min(self.epochs, self.cycle_epochs or self.epochs)
        if self.warmup_epochs >= room:
            raise UsageError(
                f"--warmup-epochs {self.warmup_epochs}: must be less than epochs and cycle_epochs, "
                f"here less than {room}"
            )
        if self.schedule == "step" and self.step_epochs is not None and self.step_epochs >= room:
            raise UsageError(
                f"--lr-step-epochs {self.step_epochs:g}: the rate would never fall; must be less than epochs and "
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
                near = nearest(name, known) or known
                raise ConfigError(f"{key}: no such training option; nearest known: {', '.join(near)}")
            if name in taken:
                raise ConfigError(f"{key}: given twice, with - and with _; keep one of them")
            taken[name] = value
        return cls(**taken)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by field name, as TOML can hold them: what is None is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
