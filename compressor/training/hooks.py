"""The places where others may act inside the training loop; it must never hold a hook that does something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class StepHook(Protocol):
    """What masks, ADMM and the like implement to take part in a fit.

    With several processes every one of them runs its own copy, so what a hook does must depend on nothing but
    weights, gradients (equal on all processes by then) and its own state.
    """

    def on_gradients(self) -> None:
        """After backward, unscaling and L1; before clipping and the optimizer's step. May change `.grad`."""
        ...

    def on_update(self) -> None:
        """After each step of the optimizer. May change weights."""
        ...

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        """After that epoch (the first is 1), before evaluation; the values join the epoch's record.

        Where two hooks tell a value of the same name, that of the first one counts.
        """
        ...

    def finished(self) -> bool:
        """True ends the fit after this epoch; asked once, after `on_epoch`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which `load_state_dict` continues bit for bit."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave; its tensors lie on the CPU."""
        ...


class BaseHook:
    """A hook that does nothing, to override in part."""

    def on_gradients(self) -> None:
        return None

    def on_update(self) -> None:
        return None

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        return {}

    def finished(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None
