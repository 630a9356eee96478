"""Losses of many steps, read when they have arrived; it must never know what makes them, or wait where it need not."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Protocol

import torch
from torch import Tensor

from compressor.errors import TrainingError


class Reading(Protocol):
    """A number on its way from the device."""

    def arrived(self) -> bool: ...

    def value(self) -> float:
        """Waits for it."""
        ...


class Losses:
    """The losses since the last `total`, and the `latest` one that is known, NaN before the first."""

    def __init__(self) -> None:
        self._coming: deque[tuple[Reading, int, str, float]] = deque()
        self._sum, self._n = 0.0, 0
        self.latest = math.nan

    def add(self, reading: Reading, n_samples: int, where: str, lr: float) -> None:
        """The loss of one more step, which was at `where`."""
        self._coming.append((reading, n_samples, where, lr))

    def read(self, *, wait: bool) -> None:
        """Takes what has arrived, in the order of the steps; all of it with `wait`.

        Raises:  TrainingError at the first that is not finite.
        """
        while self._coming and (wait or self._coming[0][0].arrived()):
            reading, n_samples, where, lr = self._coming.popleft()
            self.latest = reading.value()
            if not math.isfinite(self.latest):
                raise TrainingError(
                    f"{where}: the loss is {self.latest} at learning rate {lr:.3g}\n"
                    "try a lower lr, warmup_epochs, clip_norm, or precision fp32"
                )
            self._sum, self._n = self._sum + self.latest * n_samples, self._n + n_samples

    def total(self) -> tuple[float, int]:
        """Σ loss · samples and the number of samples, which begin anew with it; waits for all.

        Raises:  TrainingError as `read`.
        """
        self.read(wait=True)
        found = self._sum, self._n
        self._sum, self._n = 0.0, 0
        return found


class Gate:
    """Lets an optimizer pass until a loss is not finite, and never after; decided on the device, so nobody waits.

    It is told by `found_inf`, with which torch's own loss scaling makes a fused kernel pass over a step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer: Any = (
            optimizer  # `found_inf` is how torch's own loss scaling tells a fused kernel to pass over
        )
        self._shut: Tensor | None = None

    @classmethod
    def before(cls, optimizer: torch.optim.Optimizer) -> Gate | None:
        """A gate where the optimizer has a kernel that heeds it, else None."""
        return cls(optimizer) if optimizer.defaults.get("fused") else None

    def take(self, loss: Tensor) -> None:
        """The loss of the step whose update comes next."""
        bad = loss.detach().isfinite().logical_not().float()
        self._shut = bad if self._shut is None else torch.maximum(self._shut, bad)
        self._optimizer.found_inf = self._shut
