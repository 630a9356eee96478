"""What a long-running function may tell while it works; it must never hold how that is shown.

A function that takes minutes takes a `Progress` and calls it from one thread; `Silent` is the default.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener to the stages of one run; stages follow each other, they never nest."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """A new bar for `stage`: `total` times `unit`, e.g. ("admm", n_epochs * n_steps, "step")."""
        ...

    def advance(self, n: int = 1, /, **values: float) -> None:
        """`n` more units of the current stage are done; `values` (loss, accuracy …) are the latest ones."""
        ...

    def finish(self, stage: str, **values: float) -> None:
        """The stage is over, completely or because it ended early; `values` are its results."""
        ...

    def note(self, text: str) -> None:
        """One sentence for the user, at once."""
        ...


class Silent:
    """Progress that nobody listens to."""

    def start(self, stage: str, total: int, unit: str) -> None:
        return None

    def advance(self, n: int = 1, /, **values: float) -> None:
        return None

    def finish(self, stage: str, **values: float) -> None:
        return None

    def note(self, text: str) -> None:
        return None
